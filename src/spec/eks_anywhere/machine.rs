//! The fields of a TinkerbellMachineConfig.

use super::document::Document;
use super::groups::{Reference, reference};
use super::hardware::{self, Selector};
use super::image::{self, OsImage};
use super::unused::{self, Shape, given};
use crate::diagnostic::Problem;
use crate::spec::cluster::{texts, users};
use crate::spec::reader::{Fields, Reader, Value};
use crate::spec::{User, values};
use std::ops::Range;

/// Operating systems.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OsFamily {
    Ubuntu,
    RedHat,
}

/// What it says; a part is there if it is right.
pub struct Machine<'n> {
    pub selector: Option<Selector>,
    pub family: Option<(OsFamily, Range<usize>)>,
    pub image: Option<OsImage>,
    pub users: Option<(Vec<User>, Range<usize>)>,
    /// Time servers, with where they stand or could.
    pub ntp_servers: Option<(Vec<String>, Range<usize>)>,
    pub template: Option<Reference<'n>>,
}

/// Reads the document.
pub fn read<'n>(reader: &mut Reader, document: &Document<'n>) -> Option<Machine<'n>> {
    let spec = document.spec.as_ref()?;
    let mut fields = reader.fields(spec)?;
    let selector = hardware::read(reader, &mut fields, document);
    let family = family(reader, &mut fields);
    let image = image::take(reader, &mut fields, document);
    let users = reader.required(&mut fields, "users");
    let users = users.and_then(|value| Some((self::users(reader, &value)?, value.range)));
    let ntp_servers = match given(reader, &mut fields, "hostOSConfiguration") {
        Some(value) => host(reader, &value),
        None => Some((Vec::new(), document.range.clone())),
    };
    let template = given(reader, &mut fields, "templateRef").and_then(|value| reference(reader, &value));
    reader.finish(fields);
    Some(Machine { selector, family, image, users, ntp_servers, template })
}

fn family(reader: &mut Reader, fields: &mut Fields) -> Option<(OsFamily, Range<usize>)> {
    let bottlerocket = || {
        Problem::new("Bottlerocket has neither cloud-init nor SSH of its own, and metalgate needs both")
            .hint("take an image with them: `osFamily: ubuntu` or `redhat`, and its `osImageURL`")
    };
    let value = reader.required(fields, "osFamily")?;
    let family = reader.parse(&value, |text| match text {
        "bottlerocket" => Err(bottlerocket()),
        _ => values::word(text, "an OS family", &[("ubuntu", OsFamily::Ubuntu), ("redhat", OsFamily::RedHat)]),
    })?;
    Some((family, value.range))
}

/// `hostOSConfiguration`: the time servers, and what images have to bring themselves.
fn host(reader: &mut Reader, value: &Value) -> Option<(Vec<String>, Range<usize>)> {
    let mut fields = reader.fields(value)?;
    let servers = match given(reader, &mut fields, "ntpConfiguration") {
        Some(value) => {
            let inner = reader.fields(&value);
            inner.and_then(|mut fields| {
                let servers = reader.required(&mut fields, "servers");
                reader.finish(fields);
                let servers = servers?;
                Some((texts(reader, &servers, values::ntp_server)?, servers.range))
            })
        }
        None => Some((Vec::new(), value.range.clone())),
    };
    let (why, hint) = ("it is for Bottlerocket alone", "leave it out");
    unused::refuse(reader, &mut fields, "bottlerocketConfiguration", &Shape::Any, why, hint);
    let bundles = Shape::List(&Shape::Fields(&[
        ("name", Shape::Required(&Shape::Text)),
        ("data", Shape::Required(&Shape::Text)),
    ]));
    let (why, hint) = ("certificates are not added to machines", "leave it out, and put them into the image");
    unused::refuse(reader, &mut fields, "certBundles", &bundles, why, hint);
    reader.finish(fields);
    servers
}
