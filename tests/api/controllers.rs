//! A machine's way through its states on a real API server, with a BMC that does what the test wants.

use crate::objects::{CLUSTER, apply, context, named, objects, write_cluster};
use crate::start;
use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::Client;
use kube::api::PostParams;
use metalgate::agent::protocol::{Claim, Finish, Report, Step};
use metalgate::api::{Hardware, MachineState, MetalMachine, MetalMachineStatus, crds};
use metalgate::controllers::{ApiInstallations, Context, machine};
use metalgate::hardware::{BootMode, PowerState};
use metalgate::netboot::installations::{InstallationError, Installations};
use metalgate::node::ssh;
use metalgate::power::{Bmc, BmcError, BmcIdentity, BootDevice};
use metalgate::secret::Secret;
use serde_json::json;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const NODE: &str = "node-1";
const MAC: &str = "52:54:00:aa:00:01";

/// Remembers its orders; refuses them with `error`, if it is given one.
#[derive(Default)]
struct Told {
    orders: Mutex<Vec<String>>,
    error: Mutex<Option<BmcError>>,
}

impl Told {
    fn order(&self, order: &str) -> Result<(), BmcError> {
        self.orders.lock().unwrap().push(order.to_owned());
        self.error.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.orders.lock().unwrap())
    }
}

struct Controller(Arc<Told>);

#[async_trait]
impl Bmc for Controller {
    async fn power_state(&self) -> Result<PowerState, BmcError> {
        self.0.order("state").map(|()| PowerState::Off)
    }
    async fn power_on(&self) -> Result<(), BmcError> {
        self.0.order("on")
    }
    async fn power_off(&self) -> Result<(), BmcError> {
        self.0.order("off")
    }
    async fn boot_once(&self, device: BootDevice, mode: BootMode) -> Result<(), BmcError> {
        self.0.order(&format!("once from {device:?} by {mode:?}"))
    }
    async fn insert_media(&self, _: &str) -> Result<(), BmcError> {
        self.0.order("insert")
    }
    async fn eject_media(&self) -> Result<(), BmcError> {
        self.0.order("eject")
    }
    async fn identity(&self) -> Result<BmcIdentity, BmcError> {
        Ok(BmcIdentity::default())
    }
}

/// One machine's objects, and a run's context.
struct Fixture {
    client: Client,
    context: Arc<Context>,
    told: Arc<Told>,
}

impl Fixture {
    async fn new(client: Client) -> Self {
        crds::apply(&client).await.unwrap();
        write_cluster(&client).await;
        let (host_key, public) = ssh::generate_ed25519().unwrap();
        let key = json!({"stringData": {"hostKey": host_key.expose(), "hostKey.pub": public}});
        apply::<KubeSecret>(&client, "node-1-host-key", named("Secret", "node-1-host-key", key)).await;
        let account = json!({"stringData": {"username": "admin", "password": "right"}});
        apply::<KubeSecret>(&client, "node-1-bmc", named("Secret", "node-1-bmc", account)).await;
        let hardware = json!({"spec": {
            "mac": MAC, "address": "192.0.2.11/24", "gateway": "192.0.2.1", "disk": "/dev/sda", "arch": "amd64", "bootMode": "uefi",
            "bmc": {"kind": "redfish", "url": "https://192.0.2.111", "credentials": "node-1-bmc"},
        }});
        apply::<Hardware>(&client, NODE, named("Hardware", NODE, hardware)).await;
        let machine = json!({"spec":
            {"cluster": CLUSTER, "hardware": NODE, "role": "Worker", "group": "md-0", "hostKey": "node-1-host-key"},
        });
        apply::<MetalMachine>(&client, NODE, named("MetalMachine", NODE, machine)).await;
        let told = Arc::new(Told::default());
        let bmc = told.clone();
        let mut context = context(&client, Arc::new(move |_| Ok(Arc::new(Controller(bmc.clone())))));
        context.limits.attempts = 2;
        Self { context: Arc::new(context), client, told }
    }

    async fn object(&self) -> MetalMachine {
        objects::<MetalMachine>(&self.client).get(NODE).await.unwrap()
    }

    async fn status(&self) -> MetalMachineStatus {
        self.object().await.status.unwrap_or_default()
    }

    /// One step of the reconciler, as a watch would have it.
    async fn step(&self) -> MetalMachineStatus {
        machine::reconcile(Arc::new(self.object().await), self.context.clone()).await.unwrap();
        self.status().await
    }

    /// Puts the machine into a state since some time ago.
    async fn set(&self, state: MachineState, ago: Duration) {
        let mut object = self.object().await;
        let since = jiff::Timestamp::now() - jiff::SignedDuration::try_from(ago).unwrap();
        object.status = Some(MetalMachineStatus { state, since: Some(since), ..object.status.unwrap_or_default() });
        objects::<MetalMachine>(&self.client).replace_status(NODE, &PostParams::default(), &object).await.unwrap();
    }
}

fn claim(token: &str) -> Claim {
    let facts = json!({
        "arch": "amd64", "firmware": "uefi", "cpuModel": "m", "cpuThreads": 1, "memoryBytes": 1, "disks": [], "nics": [],
    });
    serde_json::from_value(json!({"token": token, "mac": MAC, "facts": facts})).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_installed_by_an_agent_with_a_token_that_works_once() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path()).await;
    let fixture = Fixture::new(cluster.client()).await;
    let installations = ApiInstallations::new(fixture.context.clone());

    // Nobody boots a machine that is not being installed.
    assert!(matches!(installations.mint_token(NODE).await, Err(InstallationError::NotInstalling(_))));
    assert_eq!(fixture.step().await.state, MachineState::PoweringOn);
    assert_eq!(fixture.step().await.state, MachineState::Netbooting);
    assert_eq!(fixture.told.take(), ["off", "once from Pxe by Uefi", "on"]);
    assert!(fixture.context.table.get(MAC.parse().unwrap()).unwrap().installing);

    // Fetching the script again ends the token before it.
    let old = installations.mint_token(NODE).await.unwrap();
    let token = installations.mint_token(NODE).await.unwrap();
    assert!(matches!(installations.claim(claim(old.expose())).await, Err(InstallationError::Refused)));
    let order = installations.claim(claim(token.expose())).await.unwrap();
    assert_eq!((order.machine.as_str(), order.image.sha256.as_str()), (NODE, "ab"));
    assert!(matches!(installations.claim(claim(token.expose())).await, Err(InstallationError::Refused)));
    let status = fixture.status().await;
    assert_eq!(status.state, MachineState::Installing);
    let stored = serde_json::to_string(&fixture.object().await).unwrap();
    assert!(!stored.contains(token.expose()) && !stored.contains(order.session.expose()), "only hashes are stored");

    // The agent's session outlives us: another run knows it by its hash.
    let installations = ApiInstallations::new(fixture.context.clone());
    let stranger = Secret::new(String::from("another session"));
    let started = || Report::Started { step: Step::Write, detail: String::from("http://192.0.2.1/image to /dev/sda") };
    assert!(matches!(installations.report(&stranger, started()).await, Err(InstallationError::Refused)));
    installations.report(&order.session, started()).await.unwrap();
    assert_eq!(fixture.status().await.reason, "write: http://192.0.2.1/image to /dev/sda");
    installations.report(&order.session, Report::Leaving { how: Finish::Reboot }).await.unwrap();
    let status = fixture.status().await;
    assert_eq!((status.state, status.boot), (MachineState::Rebooting, None));
    assert!(matches!(installations.report(&order.session, started()).await, Err(InstallationError::Refused)));
    // From here on its firmware finds no boot server, and falls through to the disk.
    fixture.set(MachineState::Rebooting, fixture.context.limits.first_boot + Duration::from_secs(60)).await;
    let status = fixture.step().await;
    assert!(!fixture.context.table.get(MAC.parse().unwrap()).unwrap().installing);
    assert_eq!(status.state, MachineState::Failed);
    assert!(status.reason.contains("does it start from the right disk?"), "{}", status.reason);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_agent_fails_its_machine_and_nothing_is_switched_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path()).await;
    let fixture = Fixture::new(cluster.client()).await;
    let installations = ApiInstallations::new(fixture.context.clone());
    fixture.step().await;
    fixture.step().await;
    let token = installations.mint_token(NODE).await.unwrap();
    let order = installations.claim(claim(token.expose())).await.unwrap();
    let error = String::from("the image has the sha256 00 instead of ab");
    installations.report(&order.session, Report::Failed { step: Step::Write, error: error.clone() }).await.unwrap();
    fixture.told.take();
    let status = fixture.step().await;
    assert_eq!((status.state, status.reason), (MachineState::Failed, format!("write: {error}")));
    assert_eq!(status.failure.unwrap().message, error);
    assert_eq!(fixture.told.take(), Vec::<String>::new());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bmc_is_tried_again_unless_that_cannot_help() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path()).await;
    let fixture = Fixture::new(cluster.client()).await;
    fixture.step().await;
    let bmc = || String::from("192.0.2.111");
    *fixture.told.error.lock().unwrap() = Some(BmcError::Unreachable { bmc: bmc(), reason: String::from("timed out") });
    for _ in 0..3 {
        let status = fixture.step().await;
        assert_eq!(status.state, MachineState::PoweringOn);
        assert!(status.reason.contains("does not answer: timed out"), "{}", status.reason);
    }
    fixture.set(MachineState::PoweringOn, fixture.context.limits.power + Duration::from_secs(1)).await;
    let status = fixture.step().await;
    assert_eq!(status.state, MachineState::Failed);
    assert!(status.reason.contains("does not answer"), "{}", status.reason);

    // A wrong password is tried once: BMCs lock accounts.
    fixture.set(MachineState::PoweringOn, Duration::ZERO).await;
    *fixture.told.error.lock().unwrap() = Some(BmcError::Unauthorized { bmc: bmc(), user: String::from("admin") });
    fixture.told.take();
    let status = fixture.step().await;
    assert_eq!(status.state, MachineState::Failed);
    assert!(status.reason.contains("check bmc_username and bmc_password"), "{}", status.reason);
    assert_eq!(fixture.told.take().len(), 1);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_falls_silent_is_started_again_but_not_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path()).await;
    let mut fixture = Fixture::new(cluster.client()).await;
    let context = Arc::get_mut(&mut fixture.context).unwrap();
    context.limits.agent_silence = Duration::ZERO;
    context.limits.stall = Duration::ZERO;
    fixture.step().await;
    assert_eq!(fixture.step().await.attempts, 1);
    // Nothing is heard of it: said, with what to look at.
    let status = fixture.step().await;
    assert_eq!(status.state, MachineState::Netbooting);
    assert!(status.reason.contains(&format!("no DHCP DISCOVER from {MAC}")), "{}", status.reason);
    // Its agent came, and fell silent.
    fixture.set(MachineState::Installing, Duration::ZERO).await;
    let status = fixture.step().await;
    assert_eq!(status.state, MachineState::PoweringOn);
    assert!(status.reason.contains("the agent has been silent"), "{}", status.reason);
    assert_eq!(fixture.step().await.attempts, 2);
    fixture.set(MachineState::Installing, Duration::ZERO).await;
    let status = fixture.step().await;
    assert_eq!(status.state, MachineState::Failed);
    assert!(status.reason.contains("tried 2 times"), "{}", status.reason);
    cluster.stop().await;
}
