//! EKS Anywhere's documents for bare metal, as they are: a Cluster, its TinkerbellDatacenterConfig and
//! TinkerbellMachineConfigs, and what else its users keep in the same file.
//!
//! Every field of theirs is known. What metalgate can do ends in the same [`ClusterSpec`] that its own documents end in; a
//! field that has no effect here is a warning at its line; what cannot be had here, and would be missed, is an error.
//! What EKS Anywhere takes from elsewhere (an image's sum, a patch release) comes from annotations `metalgate.dev/...`.
//!
//! `document` sorts the documents by kind; each kind has a file; `combine` follows the references and makes the cluster.
//! Fed by `yaml` and `reader`; the rules for single values and for networks are those of metalgate's own spec.

mod agree;
mod cluster;
mod cluster_network;
mod combine;
mod datacenter;
mod document;
mod groups;
mod hardware;
mod identity;
mod image;
mod machine;
mod references;
mod registries;
mod template;
mod unused;

use super::reader::Reader;
use super::yaml::Document;
use super::{ClusterSpec, Known};
use std::collections::BTreeMap;
use std::ops::Range;

/// The version of their API that is read.
pub const API_VERSION: &str = "anywhere.eks.amazonaws.com/v1alpha1";
/// What every version of it begins with.
const API_GROUP: &str = "anywhere.eks.amazonaws.com/";

/// Where a field of our spec comes from.
pub struct Origin {
    /// How the user's file calls it.
    pub name: String,
    /// Where it stands.
    pub range: Range<usize>,
}

/// Where the fields of our spec come from, by their paths there.
pub type Origins = BTreeMap<String, Origin>;

/// Whether the documents are EKS Anywhere's.
pub fn is_meant(documents: &[Document]) -> bool {
    let version = |document: &Document| document.root.scalar_at(&["apiVersion"]).map(str::to_owned);
    documents.iter().filter_map(version).any(|version| version.starts_with(API_GROUP))
}

/// Reads the documents.
pub fn read(reader: &mut Reader, documents: &[Document]) -> (Option<ClusterSpec>, Known, Origins) {
    let mut target = Target::default();
    let documents = document::sort(reader, documents);
    let cluster = combine::combine(reader, &documents, &mut target);
    (cluster, target.known, target.origins)
}

/// What is known of the cluster even where a part of it is wrong.
#[derive(Default)]
struct Target {
    known: Known,
    origins: Origins,
}

impl Target {
    /// Notes where a field of our spec comes from.
    fn note(&mut self, path: impl Into<String>, name: &str, range: &Range<usize>) {
        self.origins.insert(path.into(), Origin { name: name.to_owned(), range: range.clone() });
    }
}
