//! The fields of a TinkerbellDatacenterConfig.

use super::document::Document;
use super::image::{self, OsImage};
use super::unused::{self, Shape, given};
use crate::diagnostic::Problem;
use crate::spec::reader::Reader;
use crate::spec::values;
use std::net::Ipv4Addr;
use std::ops::Range;

/// What it says; a part is there if it is right.
pub struct Datacenter {
    /// Address of the provisioning services once they run in the cluster.
    pub tinkerbell_ip: Option<(Ipv4Addr, Range<usize>)>,
    pub image: Option<OsImage>,
}

/// Reads the document.
pub fn read(reader: &mut Reader, document: &Document) -> Option<Datacenter> {
    let spec = document.spec.as_ref()?;
    let mut fields = reader.fields(spec)?;
    let address = reader.required(&mut fields, "tinkerbellIP");
    let tinkerbell_ip = address.and_then(|value| {
        let address = reader.parse(&value, values::host_address)?;
        // It must be nobody's in EKS Anywhere, so it cannot be the admin machine's address.
        let problem = Problem::new(format!("`{}` has no effect here", value.name));
        let hint = "machines are served from the admin machine's own address, and later from a control-plane node's";
        reader.warn(&value.range, problem.hint(hint));
        Some((address, value.range))
    });
    let image = image::take(reader, &mut fields, document);
    let kernel = "machines load metalgate's own kernel and agent, which are artifacts";
    unused::warn(reader, &mut fields, "hookImagesURLPath", &Shape::Text, kernel);
    let why = "there is no load balancer for the provisioning services to be deployed or skipped";
    unused::warn(reader, &mut fields, "skipLoadBalancerDeployment", &Shape::Flag, why);
    unused::warn(reader, &mut fields, "loadBalancerInterface", &Shape::Text, why);
    let why = "machines start from the network: one behind a router needs a DHCP relay there";
    unused::warn(reader, &mut fields, "isoBoot", &Shape::Flag, why);
    if let Some(value) = given(reader, &mut fields, "hookIsoURL")
        && let Some(text) = reader.text(&value)
    {
        match text.ends_with(".iso") {
            true => {
                reader.warn(&value.range, Problem::new(format!("`{}` has no effect here", value.name)).hint(kernel))
            }
            false => {
                let problem = Problem::new(format!("`{}` does not end in .iso", value.name));
                reader.refuse(&value.range, problem.hint("leave it out: metalgate has no use for it"));
            }
        }
    }
    reader.finish(fields);
    Some(Datacenter { tinkerbell_ip, image })
}
