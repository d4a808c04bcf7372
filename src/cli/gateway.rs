//! `metalgate gateway plan|render|apply|status|prove|rotate`: the gateway of a cluster that we made, or of any other.

use super::arguments::{ArtifactsArg, WorkDirArg};
use super::{Failure, OutputFormat};
use crate::diagnostic::{Diagnostic, Diagnostics, Place};
use crate::gateway::certificates::{Issuer, Store};
use crate::gateway::cluster::Clusters;
use crate::gateway::prove::{self, Patience, Proof};
use crate::gateway::reach::Reach;
use crate::gateway::reconcile::{self, PROPAGATION, Settings};
use crate::gateway::{Stack, Sums};
use crate::image::manifest::Manifest;
use crate::node::supplies::gateway_definitions;
use crate::secret::Secret;
use crate::workflow::pivot::KUBECONFIG;
use crate::{kubeconfig, spec};
use clap::{Subcommand, ValueEnum};
use kube::Client;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest that a step of the gateway may take, unless the user says otherwise.
const MOST_MINUTES: u64 = 15;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Check a gateway's spec, and show what would be made of it; talks to nobody
    Plan(FileArgs),
    /// Print the objects as YAML; keys and certificates are made when they are applied
    Render(FileArgs),
    /// Make the gateway: certificates, control plane, data planes, routes
    Apply(ApplyArgs),
    /// Show the objects that are not ready, and every certificate with its expiry
    Status(ClusterArgs),
    /// Show that the data planes have this configuration, and that traffic flows
    Prove(ProveArgs),
    /// Make new certificates between the planes
    Rotate(RotateArgs),
}

#[derive(clap::Args)]
struct FileArgs {
    /// The gateway: a GatewayStack, or a Cluster with one
    #[arg(short, long, value_name = "FILE")]
    filename: PathBuf,
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

#[derive(clap::Args)]
struct ClusterArgs {
    #[command(flatten)]
    file: FileArgs,
    /// The cluster's kubeconfig [default: that of the cluster that metalgate has made from this file, else ~/.kube/config]
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    work_dir: WorkDirArg,
    /// How pods are reached: by the API server's port forwarding, or by their own addresses
    #[arg(long, value_enum, default_value_t)]
    reach: ReachArg,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum ReachArg {
    /// The API server's port forwarding
    #[default]
    Forward,
    /// Their addresses
    Direct,
}

#[derive(clap::Args)]
struct MakeArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(flatten)]
    artifacts: ArtifactsArg,
    /// Leave the provider's resource definitions to whoever has installed them
    #[arg(long)]
    without_definitions: bool,
    /// How long a step may take to become ready, in minutes
    #[arg(long, value_name = "MINUTES", default_value_t = MOST_MINUTES)]
    timeout: u64,
    /// How long the nodes may take to bring a changed Secret into running pods, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = PROPAGATION.as_secs(), hide = true)]
    propagation: u64,
}

#[derive(clap::Args)]
struct ApplyArgs {
    #[command(flatten)]
    make: MakeArgs,
    /// Only print what would change
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args)]
struct ProveArgs {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How long the canary may take to come and to go, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = Patience::default().canary.as_secs())]
    patience: u64,
}

#[derive(clap::Args)]
struct RotateArgs {
    #[command(flatten)]
    make: MakeArgs,
    /// Replace the authority, too: both are trusted until every plane has a certificate of the new one
    #[arg(long)]
    ca: bool,
}

/// A gateway of which a check failed.
#[derive(Debug, thiserror::Error)]
#[error("{failed} of {all} checks failed; the first: {first}")]
struct NotProved {
    failed: usize,
    all: usize,
    first: String,
}

/// A cluster that nobody knows how to reach.
#[derive(Debug, thiserror::Error)]
#[error("no kubeconfig for {0}: name one with --kubeconfig")]
struct NoKubeconfig(String);

pub async fn run(args: Args) -> Result<(), Failure> {
    match args.what {
        What::Plan(args) => plan(&args),
        What::Render(args) => render(&args),
        What::Apply(args) => apply(args).await,
        What::Status(args) => status(args).await,
        What::Prove(args) => proof(args).await,
        What::Rotate(args) => rotate(args).await,
    }
}

fn load(path: &Path) -> Result<Stack, Failure> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| {
        let message = format!("the file cannot be read: {error}");
        Failure::from(Diagnostics::of(Diagnostic::error(Place::file(&name), message)))
    })?;
    Ok(spec::read_gateway(&name, bytes)?)
}

fn plan(args: &FileArgs) -> Result<(), Failure> {
    let stack = load(&args.filename)?;
    let steps = stack.render(&Sums::new())?;
    let mut out = std::io::stdout().lock();
    if args.output == OutputFormat::Json {
        let objects = |step: &crate::gateway::object::Step| -> Vec<_> {
            step.objects.iter().map(crate::gateway::object::Object::reference).collect()
        };
        let steps: Vec<_> =
            steps.iter().map(|step| serde_json::json!({"title": step.title, "objects": objects(step)})).collect();
        let certificates: Vec<_> = stack
            .certificates()
            .iter()
            .map(|one| serde_json::json!({"secret": one.secret, "issuer": one.issuer, "usedBy": one.used_by}))
            .collect();
        let plan = serde_json::json!({
            "name": stack.name, "provider": stack.gateway.provider.name, "version": stack.gateway.provider.version,
            "certificates": certificates, "steps": steps,
        });
        writeln!(out, "{plan:#}")?;
        return Ok(());
    }
    let provider = &stack.gateway.provider;
    writeln!(out, "gateway {}: {} {}", stack.name, provider.name.as_str(), provider.version)?;
    if stack.gateway.control_plane.database.as_ref().is_some_and(|database| database.external.is_none()) {
        eprintln!("warning: the embedded database is one pod without a copy: for labs only");
    }
    writeln!(out, "certificates, in Secrets:")?;
    for one in stack.certificates() {
        writeln!(out, "  {}: {}", one.secret, one.used_by.join(", "))?;
    }
    for (index, step) in steps.iter().enumerate() {
        writeln!(out, "{}. {}:", index + 1, step.title)?;
        for object in &step.objects {
            writeln!(out, "  {}", object.reference())?;
        }
    }
    Ok(())
}

fn render(args: &FileArgs) -> Result<(), Failure> {
    let stack = load(&args.filename)?;
    let steps = stack.render(&Sums::new())?;
    let objects: Vec<&Value> = steps.iter().flat_map(|step| &step.objects).map(|object| &object.value).collect();
    let mut out = std::io::stdout().lock();
    match args.output {
        OutputFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&objects)?)?,
        OutputFormat::Text => {
            for object in objects {
                writeln!(out, "---\n{}", serde_saphyr::to_string(object)?.trim_end())?;
            }
        }
    }
    Ok(())
}

impl ClusterArgs {
    /// The gateway, and the clusters that it lives in.
    async fn connect(&self) -> Result<(Stack, Clusters), Failure> {
        let stack = load(&self.file.filename)?;
        let made = self.work_dir.of(&stack.name)?.join(KUBECONFIG);
        let client = match &self.kubeconfig {
            Some(path) => of_file(path).await?,
            None if made.exists() => of_file(&made).await?,
            None => match std::env::home_dir().map(|home| home.join(".kube/config")).filter(|path| path.exists()) {
                Some(path) => of_file(&path).await?,
                None => return Err(NoKubeconfig(stack.name).into()),
            },
        };
        let clusters = Clusters::connect(client, &stack).await?;
        Ok((stack, clusters))
    }

    fn reach(&self, client: &Client) -> Reach {
        match self.reach {
            ReachArg::Forward => Reach::Forward(client.clone()),
            ReachArg::Direct => Reach::Direct,
        }
    }
}

async fn of_file(path: &Path) -> Result<Client, Failure> {
    let text = std::fs::read_to_string(path).map_err(|source| Unreadable { path: path.to_owned(), source })?;
    Ok(kubeconfig::client(&Secret::new(text)).await?)
}

/// A kubeconfig that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the kubeconfig {}", .path.display())]
struct Unreadable {
    path: PathBuf,
    source: std::io::Error,
}

impl MakeArgs {
    /// The provider's definitions, where it has any.
    fn definitions(&self, stack: &Stack) -> Result<Vec<Value>, Failure> {
        let Some(name) = stack.definitions().filter(|_| !self.without_definitions) else { return Ok(Vec::new()) };
        let manifest = Manifest::load(&self.artifacts.dir()?)?;
        Ok(gateway_definitions(&manifest, name)?)
    }

    fn settings<'s>(&self, definitions: Vec<Value>, reach: &'s (dyn Fn(&Client) -> Reach + Sync)) -> Settings<'s> {
        Settings {
            reach,
            definitions,
            most: Duration::from_secs(self.timeout * 60),
            propagation: Duration::from_secs(self.propagation),
            report: &|text| eprintln!("{text}"),
        }
    }
}

async fn apply(args: ApplyArgs) -> Result<(), Failure> {
    let (stack, clusters) = args.make.cluster.connect().await?;
    let definitions = args.make.definitions(&stack)?;
    if args.dry_run {
        let changes = reconcile::rehearse(&clusters, &stack, definitions).await?;
        let mut out = std::io::stdout().lock();
        match args.make.cluster.file.output {
            OutputFormat::Json => writeln!(out, "{}", serde_json::to_string_pretty(&changes)?)?,
            OutputFormat::Text if changes.is_empty() => writeln!(out, "nothing changes")?,
            OutputFormat::Text => {
                for change in changes {
                    writeln!(out, "{}", change.object)?;
                    change.lines.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
                }
            }
        }
        return Ok(());
    }
    let reach = |client: &Client| args.make.cluster.reach(client);
    reconcile::reconcile(&clusters, &stack, &args.make.settings(definitions, &reach)).await?;
    eprintln!("gateway {} is in place; `metalgate gateway prove` shows that traffic flows", stack.name);
    Ok(())
}

async fn status(args: ClusterArgs) -> Result<(), Failure> {
    let (stack, clusters) = args.connect().await?;
    let store = Store { stack: &stack, here: clusters.here.clone(), planes: &clusters.planes };
    let certificates = store.status(&stack.certificates()).await?;
    let objects = crate::gateway::cluster::look(&clusters, &stack.render(&Sums::new())?).await?;
    let planes = match prove::look(&clusters, &stack, &|client: &Client| args.reach(client)).await {
        Ok(seen) => seen.proof,
        // The rest is worth to be told all the same.
        Err(error) => {
            let mut proof = Proof::default();
            proof.add("control plane", stack.name.clone(), Err(crate::error::chain(&error)));
            proof
        }
    };
    let mut out = std::io::stdout().lock();
    if args.file.output == OutputFormat::Json {
        let report = serde_json::json!({
            "name": stack.name, "objects": objects, "planes": planes, "certificates": certificates,
        });
        writeln!(out, "{report:#}")?;
        return Ok(());
    }
    let waiting: Vec<_> = objects.iter().filter(|object| !object.ready).collect();
    writeln!(out, "gateway {}: {} of {} objects are ready", stack.name, objects.len() - waiting.len(), objects.len())?;
    for object in waiting {
        writeln!(out, "  {}: {}", object.object, object.reason.as_deref().unwrap_or_default())?;
    }
    writeln!(out, "planes:")?;
    for check in &planes.checks {
        writeln!(out, "  {check}")?;
    }
    writeln!(out, "certificates:")?;
    for certificate in &certificates {
        writeln!(out, "  {certificate}")?;
    }
    Ok(())
}

async fn proof(args: ProveArgs) -> Result<(), Failure> {
    let (stack, clusters) = args.cluster.connect().await?;
    let canary = Duration::from_secs(args.patience);
    let patience = Patience { settle: canary.min(Patience::default().settle), canary };
    let reach = |client: &Client| args.cluster.reach(client);
    let proof = prove::prove(&clusters, &stack, &reach, patience, &|text| eprintln!("{text}")).await?;
    match args.cluster.file.output {
        OutputFormat::Json => println!("{}", serde_json::to_string_pretty(&proof)?),
        OutputFormat::Text => print(&proof),
    }
    let failed: Vec<_> = proof.checks.iter().filter(|check| !check.passed).collect();
    match failed.first() {
        None => Ok(()),
        Some(first) => Err(NotProved {
            failed: failed.len(),
            all: proof.checks.len(),
            first: format!("{} of {}: {}", first.name, first.subject, first.detail),
        }
        .into()),
    }
}

/// One line for each check.
pub fn print(proof: &Proof) {
    proof.checks.iter().for_each(|check| println!("{check}"));
}

async fn rotate(args: RotateArgs) -> Result<(), Failure> {
    let (stack, clusters) = args.make.cluster.connect().await?;
    let definitions = args.make.definitions(&stack)?;
    let store = Store { stack: &stack, here: clusters.here.clone(), planes: &clusters.planes };
    store.rotate(Issuer::Planes, args.ca).await?;
    let reach = |client: &Client| args.make.cluster.reach(client);
    reconcile::reconcile(&clusters, &stack, &args.make.settings(definitions, &reach)).await?;
    eprintln!("gateway {}: every plane has a new certificate", stack.name);
    Ok(())
}
