//! Our custom resources, group `metalgate.dev/v1alpha1`: what `create` writes, controllers drive and, after the pivot, the
//! manager keeps. Fed by `plan`; stored in the bootstrap cluster first.
//!
//! The committed CRDs in `crds.yaml` beside this file are generated from these types; a test holds them equal.

pub mod crds;
mod hardware;
mod metal_cluster;
mod metal_machine;

pub use hardware::{BmcRef, Hardware, HardwareSpec, HardwareStatus};
pub use metal_cluster::{MetalCluster, MetalClusterSpec, MetalClusterStatus};
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
