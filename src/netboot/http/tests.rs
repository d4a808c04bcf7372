//! Both servers on loopback, against curl.

use super::*;
use crate::agent::protocol::{Claim, Report, Task, WorkOrder};
use crate::event::EventKind;
use crate::netboot::installations::InstallationError;
use crate::netboot::table::tests::entry;
use crate::pki::{Authority, LeafRequest, Usage};
use crate::secret::Secret;
use async_trait::async_trait;
use std::process::{Command, Output};
use std::sync::Mutex;

/// Stands for the controllers: one token at a time, no work orders, and a store that can be down.
#[derive(Default)]
struct FakeInstallations {
    token: Mutex<Option<String>>,
    minted: Mutex<u32>,
    down: Mutex<bool>,
}

#[async_trait]
impl Installations for FakeInstallations {
    async fn mint_token(&self, machine: &str) -> Result<Secret<String>, InstallationError> {
        if *self.down.lock().unwrap() {
            return Err(InstallationError::Store(format!("{machine}: down").into()));
        }
        let mut minted = self.minted.lock().unwrap();
        *minted += 1;
        let token = format!("token-{minted}");
        *self.token.lock().unwrap() = Some(token.clone());
        Ok(Secret::new(token))
    }

    async fn claim(&self, claim: Claim) -> Result<WorkOrder, InstallationError> {
        if self.token.lock().unwrap().take().as_ref() != Some(claim.token.expose()) {
            return Err(InstallationError::Refused);
        }
        Err(InstallationError::NotInstalling(String::from("the token was right")))
    }

    async fn report(&self, session: &Secret<String>, _: Report) -> Result<(), InstallationError> {
        if *self.down.lock().unwrap() {
            return Err(InstallationError::Store("down".into()));
        }
        if session.expose() == "session" { Ok(()) } else { Err(InstallationError::Refused) }
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    plain: String,
    agent: String,
    table: BootTable,
    installations: Arc<FakeInstallations>,
    events: EventBus,
    content: Vec<u8>,
    cancel: CancellationToken,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn serve() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..1_000_000u32).map(|i| (i * 7 % 251) as u8).collect();
    let path = dir.path().join("vmlinuz");
    std::fs::write(&path, &content).unwrap();
    std::fs::write(dir.path().join("secret"), "not served").unwrap();
    let authority = Authority::new("test CA").unwrap();
    std::fs::write(dir.path().join("ca.crt"), authority.cert()).unwrap();
    let request = LeafRequest {
        common_name: String::from("agent API"),
        organizations: Vec::new(),
        dns_names: Vec::new(),
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        usage: Usage::Server,
        lifetime: Duration::from_secs(86_400),
    };
    let file = ServedFile { path, sha256: "ab".repeat(32) };
    let config = HttpConfig {
        address: Ipv4Addr::LOCALHOST,
        http_port: 0,
        agent_port: 0,
        identity: authority.issue(&request).unwrap(),
        task: Task::Install,
        artifacts: BTreeMap::from([
            ("boot/amd64/vmlinuz".into(), file.clone()),
            ("ipxe/amd64/snponly.efi".into(), file),
        ]),
        images: BTreeMap::new(),
    };
    let (table, events) = (BootTable::default(), EventBus::default());
    table.set(entry(1, true));
    table.set(entry(2, false));
    let installations = Arc::new(FakeInstallations::default());
    let server = HttpServer::bind(config, table.clone(), installations.clone(), events.clone()).await.unwrap();
    let (plain, agent) = server.addresses().unwrap();
    let cancel = CancellationToken::new();
    tokio::spawn(server.run(cancel.clone()));
    let (plain, agent) = (format!("http://{plain}"), format!("https://{agent}"));
    Fixture { dir, plain, agent, table, installations, events, content, cancel }
}

async fn curl(args: &[&str]) -> Output {
    let args: Vec<String> = ["-sS", "--max-time", "10"].iter().chain(args).map(|arg| (*arg).to_owned()).collect();
    let run = move || Command::new("curl").args(args).output().expect("curl runs");
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// Status code and body.
async fn fetch(url: &str, args: &[&str]) -> (String, Vec<u8>) {
    let args: Vec<&str> = [url, "-w", "\n%{http_code}"].iter().chain(args).copied().collect();
    let mut body = curl(&args).await.stdout;
    let code = String::from_utf8(body.split_off(body.len() - 3)).unwrap();
    body.pop();
    (code, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_served_whole_in_parts_and_not_again() {
    let fixture = serve().await;
    let url = format!("{}/artifacts/boot/amd64/vmlinuz", fixture.plain);
    let etag = format!("\"{}\"", "ab".repeat(32));
    assert_eq!(fetch(&url, &[]).await, ("200".into(), fixture.content.clone()));
    assert_eq!(fetch(&url, &["-r", "10-19"]).await, ("206".into(), fixture.content[10..20].to_vec()));
    assert_eq!(fetch(&url, &["-r", "-5"]).await.1, fixture.content[999_995..]);
    assert_eq!(fetch(&url, &["-r", "1000000-"]).await.0, "416");
    let (code, body) = fetch(&url, &["-r", "0-1,5-6"]).await;
    assert_eq!((code.as_str(), body.len()), ("200", fixture.content.len()));
    let head = String::from_utf8(curl(&["-I", &url]).await.stdout).unwrap().to_lowercase();
    for line in ["200 ok", "content-length: 1000000", "accept-ranges: bytes", &format!("etag: {etag}")] {
        assert!(head.contains(line), "{line} is not in\n{head}");
    }
    assert_eq!(fetch(&url, &["-H", &format!("If-None-Match: {etag}")]).await.0, "304");
    let same = format!("If-Range: {etag}");
    assert_eq!(fetch(&url, &["-r", "0-9", "-H", &same]).await.0, "206");
    assert_eq!(fetch(&url, &["-r", "0-9", "-H", "If-Range: \"other\""]).await.0, "200");

    // A broken download is continued where it broke.
    let part = fixture.dir.path().join("part");
    std::fs::write(&part, &fixture.content[..123_456]).unwrap();
    curl(&["-C", "-", "-o", part.to_str().unwrap(), &url]).await;
    assert_eq!(std::fs::read(&part).unwrap(), fixture.content);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_the_named_files_is_served() {
    let fixture = serve().await;
    for path in [
        "/artifacts/secret",
        "/artifacts/../secret",
        "/artifacts/%2e%2e/secret",
        "/artifacts//etc/passwd",
        "/artifacts/boot/amd64/vmlinuz/../../../secret",
        "/images/ca.crt",
        "/ipxe/../../etc/passwd",
        "/etc/passwd",
    ] {
        let (code, _) = fetch(&format!("{}{path}", fixture.plain), &["--path-as-is"]).await;
        assert_eq!(code, "404", "{path}");
    }
    assert_eq!(fetch(&format!("{}/ipxe/amd64/snponly.efi", fixture.plain), &[]).await.0, "200");
    let put = fetch(&format!("{}/artifacts/boot/amd64/vmlinuz", fixture.plain), &["-X", "PUT", "-d", "x"]).await;
    assert_eq!(put.0, "405");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_boot_script_is_for_one_machine_that_is_being_installed() {
    let fixture = serve().await;
    let script = |mac: &str| format!("{}/boot/{mac}/boot.ipxe", fixture.plain);
    for (mac, token) in [("52:54:00:aa:00:01", "token-1"), ("52-54-00-AA-00-01", "token-2")] {
        let (code, body) = fetch(&script(mac), &[]).await;
        let body = String::from_utf8(body).unwrap();
        assert_eq!(code, "200");
        assert!(body.starts_with("#!ipxe") && body.contains(&format!("metalgate.token={token} ")), "{body}");
    }
    let (_, installed) = fetch(&script("52:54:00:aa:00:02"), &[]).await;
    let installed = String::from_utf8(installed).unwrap();
    assert!(installed.contains("sanboot") && !installed.contains("token"), "{installed}");
    for stranger in ["52:54:00:aa:00:03", "nonsense", "${mac}"] {
        assert_eq!(fetch(&script(stranger), &["-g"]).await.0, "404");
    }
    for chain in ["/autoexec.ipxe", "/ipxe/amd64/autoexec.ipxe"] {
        let (_, body) = fetch(&format!("{}{chain}", fixture.plain), &[]).await;
        assert!(String::from_utf8(body).unwrap().contains("/boot/${mac:hexhyp}/boot.ipxe"));
    }
    *fixture.installations.down.lock().unwrap() = true;
    assert_eq!(fetch(&script("52:54:00:aa:00:01"), &[]).await.0, "503");
    fixture.table.remove(entry(1, true).mac);
    assert_eq!(fetch(&script("52:54:00:aa:00:01"), &[]).await.0, "404");
}

fn claim(token: &str) -> String {
    serde_json::json!({
        "token": token, "mac": "52:54:00:aa:00:01",
        "facts": {"arch": "amd64", "firmware": "uefi", "cpuModel": "m", "cpuThreads": 1, "memoryBytes": 1, "disks": [], "nics": []},
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_api_takes_a_token_once_and_tells_no_from_not_now() {
    let fixture = serve().await;
    let mut events = fixture.events.subscribe();
    let ca = fixture.dir.path().join("ca.crt").display().to_string();
    let post = async |path: &str, body: &str, session: &str| {
        let url = format!("{}{path}", fixture.agent);
        let bearer = format!("Authorization: Bearer {session}");
        fetch(&url, &["--cacert", &ca, "-H", "Content-Type: application/json", "-H", &bearer, "-d", body]).await.0
    };
    fixture.installations.mint_token("node-1").await.unwrap();
    assert_eq!(post("/agent/v1/claim", &claim("wrong"), "").await, "401");
    fixture.installations.mint_token("node-1").await.unwrap();
    // The fake has no work order to give: 409 says that the token was right.
    assert_eq!(post("/agent/v1/claim", &claim("token-2"), "").await, "409");
    assert_eq!(post("/agent/v1/claim", &claim("token-2"), "").await, "401");
    assert_eq!(post("/agent/v1/claim", "{\"token\": 1}", "").await, "422");
    let report = r#"{"report": "leaving", "how": "reboot"}"#;
    assert_eq!(post("/agent/v1/report", report, "session").await, "204");
    assert_eq!(post("/agent/v1/report", report, "other").await, "401");
    *fixture.installations.down.lock().unwrap() = true;
    assert_eq!(post("/agent/v1/report", report, "session").await, "503");
    // An argument list does not hold it.
    let large = fixture.dir.path().join("large");
    std::fs::write(&large, "x".repeat(LARGEST_MESSAGE + 1)).unwrap();
    assert_eq!(post("/agent/v1/report", &format!("@{}", large.display()), "session").await, "413");

    // Who does not trust the certificate does not get through; plain HTTP does not lead here.
    let untrusted = curl(&[&format!("{}/agent/v1/report", fixture.agent)]).await;
    assert_eq!(untrusted.status.code(), Some(60));
    assert_eq!(fetch(&format!("{}/agent/v1/claim", fixture.plain), &["-d", &claim("x")]).await.0, "404");

    let mut refused = 0;
    while let Ok(event) = events.try_recv() {
        refused += u32::from(matches!(event.kind, EventKind::AgentRefused { .. }));
        let text = serde_json::to_string(&event).unwrap();
        assert!(!text.contains("token-2") && !text.contains("Bearer"), "a secret in an event: {text}");
    }
    assert_eq!(refused, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_are_events_and_counters() {
    let fixture = serve().await;
    let mut events = fixture.events.subscribe();
    fetch(&format!("{}/artifacts/boot/amd64/vmlinuz", fixture.plain), &["-r", "0-99"]).await;
    let event = tokio::time::timeout(Duration::from_secs(5), events.recv()).await.unwrap().unwrap();
    let EventKind::Http { path, status: 206, bytes: 100, .. } = event.kind else { panic!("{event:?}") };
    assert_eq!(path, "/artifacts/boot/amd64/vmlinuz");
    let (_, metrics) = fetch(&format!("{}/metrics", fixture.plain), &[]).await;
    assert!(String::from_utf8(metrics).unwrap().contains("metalgate_http_responses_total{status=\"206\"} 1"));
    assert_eq!(fetch(&format!("{}/healthz", fixture.plain), &[]).await, ("200".into(), b"ok\n".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named_with_the_field_that_moves_it() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = listen(Ipv4Addr::LOCALHOST, port, "HTTP", "httpPort").unwrap_err().to_string();
    assert!(error.contains(&port.to_string()) && error.contains("spec.provisioning.httpPort"), "{error}");
}
