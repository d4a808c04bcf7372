//! `metalgate artifacts fill|verify|list|add|pack`.

use super::arguments::ArtifactsArg;
use super::{Failure, OutputFormat, progress};
use crate::event::{EventBus, EventKind};
use crate::hardware::Arch;
use crate::image::add;
use crate::image::fill::{self, Request, Source};
use crate::image::manifest::{Kind, Manifest};
use crate::image::oci;
use clap::{Subcommand, ValueEnum};
use std::path::{Path, PathBuf};
use url::Url;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    artifacts: ArtifactsArg,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Get what is missing or damaged, and write the manifest
    Fill(FillArgs),
    /// Check every file against the manifest
    Verify,
    /// Show what is there
    List {
        #[arg(long, value_enum, default_value_t)]
        output: OutputFormat,
    },
    /// Take container images or a CNI's manifest of your own into the directory; `fill` leaves them alone
    ///
    /// Images come as plain tars, from `docker save NAME`, `skopeo copy ... oci-archive:` or `ctr images export`. A CNI's
    /// manifest is the YAML that its makers say to apply; a spec names it by the file's name without `.yaml`. Bring every
    /// image that it names, too: nodes fetch none from the internet.
    Add(AddArgs),
    /// Write a folder as a container image of one layer, an OCI archive
    Pack(PackArgs),
}

#[derive(clap::Args)]
struct AddArgs {
    /// The files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// What they are: container-image (a .tar by default) or cni-manifest (a .yaml)
    #[arg(long, value_name = "KIND", value_parser = own_kind)]
    kind: Option<Kind>,
    /// Which machines they are for [default: what images say themselves; amd64]
    #[arg(long, value_name = "ARCH", value_parser = arch)]
    arch: Option<Arch>,
}

#[derive(clap::Args)]
struct PackArgs {
    /// The folder that is the image's root; everything in it will be root's
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// The image's full name, such as registry.example.com/tool:v1
    #[arg(long, value_name = "NAME")]
    reference: String,
    /// What the image runs; may be repeated for its first arguments
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Whom it runs as [default: root]
    #[arg(long, value_name = "UID[:GID]", default_value = "", hide_default_value = true)]
    user: String,
    /// A variable for it; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Which machines it is for
    #[arg(long, value_name = "ARCH", value_parser = arch, default_value = "amd64")]
    arch: Arch,
    /// The archive to write
    out: PathBuf,
}

fn own_kind(text: &str) -> Result<Kind, String> {
    let own = [Kind::ContainerImage, Kind::CniManifest];
    own.into_iter().find(|kind| kind.to_string() == text).ok_or(String::from("it is container-image or cni-manifest"))
}

fn arch(text: &str) -> Result<Arch, String> {
    [Arch::Amd64, Arch::Arm64]
        .into_iter()
        .find(|arch| arch.to_string() == text)
        .ok_or(String::from("it is amd64 or arm64"))
}

#[derive(clap::Args)]
struct FillArgs {
    /// Where the files come from
    #[arg(long, value_enum, default_value_t)]
    from: From,
    /// The address of a copied artifact directory, for `--from mirror`
    #[arg(long, value_name = "URL", required_if_eq("from", "mirror"))]
    mirror: Option<Url>,
    /// Only this kind (may be repeated)
    #[arg(long, value_name = "KIND")]
    only: Vec<Kind>,
    /// The provisioning folder of metalgate's repository, for what is built
    #[arg(long, value_name = "DIR", default_value = "provisioning")]
    provisioning: PathBuf,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum From {
    /// Release servers; what is published nowhere is built
    #[default]
    Release,
    /// A copy of an artifact directory on a web server
    Mirror,
    /// Built from package registries
    Build,
}

pub async fn run(args: Args) -> Result<(), Failure> {
    let dir = args.artifacts.dir()?;
    match args.what {
        What::Fill(fill) => run_fill(dir, fill).await,
        What::Verify => verify(dir).await,
        What::List { output } => list(&Manifest::load(&dir)?, output),
        What::Add(add) => run_add(&dir, add),
        What::Pack(pack) => run_pack(pack),
    }
}

fn run_add(dir: &Path, args: AddArgs) -> Result<(), Failure> {
    for file in &args.files {
        let added = add::add(dir, file, args.kind, args.arch)?;
        let images = added.images.iter().map(|image| format!("\n  {image}")).collect::<String>();
        eprintln!("added {} as {}{images}", file.display(), added.path);
    }
    Ok(())
}

fn run_pack(args: PackArgs) -> Result<(), Failure> {
    let PackArgs { root, reference, entrypoint, user, env, arch, out } = args;
    let entries = oci::entries(&root)?;
    let workdir = String::new();
    oci::write(&out, &oci::Image { reference, arch, entrypoint, env, user, workdir, entries })?;
    Ok(())
}

async fn run_fill(dir: PathBuf, args: FillArgs) -> Result<(), Failure> {
    let source = match (args.from, args.mirror) {
        (From::Mirror, Some(url)) => Source::Mirror(url),
        (From::Build, _) => Source::Build,
        _ => Source::Release,
    };
    let request = Request { dir, source, only: args.only.into_iter().collect(), provisioning: args.provisioning };
    let events = EventBus::default();
    let display = progress::start(&events);
    let filled = fill::fill(&request, &events).await;
    drop(events);
    display.await?;
    let manifest = filled?;
    eprintln!("{} artifacts in {}", manifest.artifacts.len(), manifest.dir().display());
    Ok(())
}

async fn verify(dir: PathBuf) -> Result<(), Failure> {
    let manifest = Manifest::load(&dir)?;
    let events = EventBus::default();
    let display = progress::start(&events);
    let checked = tokio::task::spawn_blocking(move || {
        let what = String::from("checking artifacts");
        let progress = |done, total| {
            events.emit(None, EventKind::Progress { what: what.clone(), done, total: Some(total) });
        };
        manifest.verify(|_| true, progress).map(|()| manifest.artifacts.len())
    });
    let files = checked.await?;
    display.await?;
    eprintln!("{} files in {} are what the manifest says", files?, dir.display());
    Ok(())
}

fn list(manifest: &Manifest, output: OutputFormat) -> Result<(), Failure> {
    match output {
        OutputFormat::Json => println!("{}", serde_json::to_string_pretty(manifest)?),
        OutputFormat::Text => {
            for artifact in &manifest.artifacts {
                let size = indicatif::DecimalBytes(artifact.size).to_string();
                println!("{:<36} {:<24} {size:>10}  {}", artifact.path, artifact.version, artifact.sha256);
            }
        }
    }
    Ok(())
}
