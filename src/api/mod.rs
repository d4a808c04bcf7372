//! Our custom resources, group `metalgate.dev/v1alpha1`: what `create` writes, controllers drive and, after the pivot, the
//! manager keeps. Fed by `plan`; stored in the bootstrap cluster first.
//!
//! The committed CRDs in `crds.yaml` beside this file are generated from these types; a test holds them equal.

pub mod apply;
pub mod crds;
mod error;
mod hardware;
mod metal_cluster;
mod metal_machine;
pub mod secrets;

pub use error::ApiError;
pub use hardware::{BmcRef, Hardware, HardwareSpec, HardwareStatus};
pub use metal_cluster::{
    GatewayStatus, MachineGroup, MetalCluster, MetalClusterSpec, MetalClusterStatus, OsImage, Provisioning,
};
pub use metal_machine::{
    BootCredentials, Failure, InstallProgress, InstalledOs, MachineRole, MachineState, MetalMachine, MetalMachineSpec,
    MetalMachineStatus,
};

/// API group of everything here.
pub const GROUP: &str = "metalgate.dev";
/// Field manager of our server-side applies.
pub const FIELD_MANAGER: &str = "metalgate";
/// Namespace of our objects.
pub const NAMESPACE: &str = "metalgate";
/// Label that names the cluster an object belongs to.
pub const CLUSTER_LABEL: &str = "metalgate.dev/cluster";
/// Finalizer of MetalMachine: a node is drained and taken out of the cluster before its object goes.
pub const MACHINE_FINALIZER: &str = "metalgate.dev/node";
/// Label of Hardware that no machine may be made of: its MetalMachine was deleted by hand. Whoever takes it away gives the
/// hardware back.
pub const OUT_OF_SERVICE_LABEL: &str = "metalgate.dev/out-of-service";
/// Annotation of MetalMachine: it is deleted because its group became smaller, so its Hardware may be used again.
pub const SURPLUS_ANNOTATION: &str = "metalgate.dev/surplus";
