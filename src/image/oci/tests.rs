use super::*;
use pretty_assertions::assert_eq;
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::os::unix::fs::{PermissionsExt, symlink};

/// The files of a tar, by name.
fn untar(tar: impl Read) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(entry.path().unwrap().to_string_lossy().into_owned(), content);
    }
    files
}

/// A tar of these files.
fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        layer::append(&mut tar, name, 0o644, content).unwrap();
    }
    tar.into_inner().unwrap()
}

fn contents_of(files: &[(&str, &[u8])]) -> Result<Contents, OciError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    std::fs::write(&path, tar_of(files)).unwrap();
    contents(&path)
}

fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let name = format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"));
    let content = &files[&name];
    assert!(name.ends_with(&hex_sum(content)), "{name}");
    assert_eq!(descriptor["size"], content.len());
    content
}

fn tool(dir: &Path) -> Image {
    std::fs::write(dir.join("tool"), "what the tool is").unwrap();
    let entries = vec![Entry::program("/usr/bin/tool", dir.join("tool")), Entry::text("etc/tool.conf", "fast")];
    let (entrypoint, env) = (vec![String::from("/usr/bin/tool")], vec![String::from("A=b")]);
    let reference = String::from("registry.example.com/tool:v1");
    Image { reference, entrypoint, env, user: String::from("65535:65535"), entries, ..Image::default() }
}

#[test]
fn an_image_is_written_as_the_specification_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tool.tar");
    write(&path, &tool(dir.path())).unwrap();
    let files = untar(File::open(&path).unwrap());
    assert_eq!(files["oci-layout"], br#"{"imageLayoutVersion":"1.0.0"}"#);
    let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let named = &index["manifests"][0];
    assert_eq!(named["annotations"][NAME], "registry.example.com/tool:v1");
    assert_eq!(named["annotations"][REF_NAME], "registry.example.com/tool:v1");
    let manifest: Value = serde_json::from_slice(blob(&files, named)).unwrap();
    let config: Value = serde_json::from_slice(blob(&files, &manifest["config"])).unwrap();
    assert_eq!((&config["architecture"], &config["os"]), (&json!("amd64"), &json!("linux")));
    assert_eq!(
        config["config"],
        json!({ "User": "65535:65535", "Env": [PATH, "A=b"], "Entrypoint": ["/usr/bin/tool"], "WorkingDir": "/" })
    );
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
    let layer = untar(Cursor::new(blob(&files, &manifest["layers"][0])));
    assert_eq!(layer.keys().collect::<Vec<_>>(), ["etc", "etc/tool.conf", "usr", "usr/bin", "usr/bin/tool"]);
    assert_eq!(layer["usr/bin/tool"], b"what the tool is");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing else is left");
    let archs = vec![Arch::Amd64];
    assert_eq!(contents(&path).unwrap(), Contents { references: vec!["registry.example.com/tool:v1".into()], archs });
}

#[test]
fn the_same_folder_gives_the_same_bytes_whenever_and_by_whomever_it_was_made() {
    let (dir, mut sums) = (tempfile::tempdir().unwrap(), Vec::new());
    let long = format!("{}/{}", "a".repeat(120), "b".repeat(120));
    for (at, names) in [["b", "a", long.as_str()], [long.as_str(), "a", "b"]].iter().enumerate() {
        let root = dir.path().join(at.to_string());
        for name in names {
            std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            std::fs::write(root.join(name), *name).unwrap();
        }
        symlink("/nowhere", root.join("link")).unwrap();
        std::fs::set_permissions(root.join("a"), PermissionsExt::from_mode(0o4755)).unwrap();
        let path = dir.path().join(format!("{at}.tar"));
        let reference = String::from("example.com/a:1");
        write(&path, &Image { reference, entries: entries(&root).unwrap(), ..Image::default() }).unwrap();
        sums.push(manifest::sum(&path, |_| {}).unwrap());
    }
    assert_eq!(sums[0], sums[1]);
}

#[test]
fn what_cannot_be_in_an_image_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    let write_with =
        |entries| write(&path, &Image { reference: "example.com/a:1".into(), entries, ..Image::default() });
    for evil in ["../a", "a/../../b", "/", ""] {
        assert!(matches!(write_with(vec![Entry::text(evil, "")]), Err(OciError::Path(_))), "{evil}");
    }
    assert!(matches!(write_with(vec![Entry::text("a", ""), Entry::text("/a", "")]), Err(OciError::Twice(_))));
    assert!(matches!(write_with(vec![Entry::program("a", "/no/such/file")]), Err(OciError::Read { .. })));
    let nameless = Image { reference: "Not A Name".into(), ..Image::default() };
    assert!(matches!(write(&path, &nameless), Err(OciError::Reference { .. })));
    std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    assert!(matches!(entries(dir.path()), Err(OciError::Special(_))));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing but the socket is left");
}

#[test]
fn the_names_in_archives_of_docker_save_are_those_that_containerd_gives_the_images() {
    let saved = br#"[{"Config":"c.json","RepoTags":["nginx:1.27","quay.io/cilium/cilium:v1.19.1"],"Layers":[]}]"#;
    let config = br#"{"architecture":"arm64","os":"linux"}"#;
    let found = contents_of(&[("c.json", config), ("manifest.json", saved)]).unwrap();
    assert_eq!(found.references, ["docker.io/library/nginx:1.27", "quay.io/cilium/cilium:v1.19.1"]);
    assert_eq!(found.archs, [Arch::Arm64]);

    // As Docker 25 and later write it: both forms in one.
    let index = br#"{"manifests":[{"digest":"sha256:aa","annotations":{
        "io.containerd.image.name":"docker.io/library/nginx:1.27","org.opencontainers.image.ref.name":"1.27"}}]}"#;
    let manifest = br#"{"config":{"digest":"sha256:cc"}}"#;
    let both = [
        ("./index.json", index.as_slice()),
        ("blobs/sha256/aa", manifest),
        ("blobs/sha256/cc", br#"{"architecture":"amd64"}"#),
        ("manifest.json", br#"[{"Config":"blobs/sha256/cc","RepoTags":["nginx:1.27"],"Layers":[]}]"#),
    ];
    let found = contents_of(&both).unwrap();
    assert_eq!((found.references, found.archs), (vec!["docker.io/library/nginx:1.27".into()], vec![Arch::Amd64]));
}

#[test]
fn an_index_of_many_machines_counts_for_those_whose_image_is_there() {
    let index =
        br#"{"manifests":[{"digest":"sha256:aa","annotations":{"org.opencontainers.image.ref.name":"a.b/c:1"}}]}"#;
    let many = br#"{"manifests":[{"digest":"sha256:bb"},{"digest":"sha256:dd"},{"digest":"sha256:aa"}]}"#;
    let files = [
        ("index.json", index.as_slice()),
        ("blobs/sha256/aa", many),
        ("blobs/sha256/bb", br#"{"config":{"digest":"sha256:cc"}}"#),
        ("blobs/sha256/cc", br#"{"architecture":"arm64"}"#),
    ];
    let found = contents_of(&files).unwrap();
    assert_eq!((found.references, found.archs), (vec!["a.b/c:1".into()], vec![Arch::Arm64]));
}

#[test]
fn archives_that_are_no_images_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    let of_bytes = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        contents(&path).unwrap_err()
    };
    assert!(matches!(of_bytes(b"\x1f\x8b\x08\x00rest"), OciError::Compressed(_)));
    assert!(matches!(of_bytes(b"no tar at all"), OciError::NotImage { .. }));
    assert!(matches!(of_bytes(b""), OciError::NotImage { .. }));
    let whole = tar_of(&[("index.json", br#"{"manifests":[]}"#)]);
    assert!(matches!(of_bytes(&whole), OciError::Nameless(_)));
    assert!(matches!(of_bytes(&whole[..520]), OciError::NotImage { .. }), "cut off");
    let nameless = |text: &[u8]| contents_of(&[("manifest.json", text)]).unwrap_err();
    assert!(matches!(nameless(br#"[{"Config":"c","RepoTags":null}]"#), OciError::Nameless(_)));
    assert!(matches!(nameless(b"{"), OciError::NotImage { .. }));
    assert!(matches!(nameless(&vec![b' '; 5 << 20]), OciError::NotImage { .. }), "too long");
    assert!(matches!(nameless(br#"[{"Config":"c","RepoTags":["No Name"]}]"#), OciError::Reference { .. }));
    assert!(matches!(contents(&dir.path().join("none")), Err(OciError::Read { .. })));
}

#[test]
fn links_in_an_archive_are_not_followed() {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, "manifest.json", "/etc/passwd").unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("image.tar"), tar.into_inner().unwrap()).unwrap();
    assert!(matches!(contents(&dir.path().join("image.tar")), Err(OciError::NotImage { .. })));
}
