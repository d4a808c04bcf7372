//! `osImageURL`, with the annotations that say what EKS Anywhere does not ask for: its sum, and how it is packed.

use super::document::{Document, IMAGE_FORMAT, IMAGE_SHA256};
use super::unused::given;
use crate::diagnostic::Problem;
use crate::spec::reader::{Fields, Reader};
use crate::spec::{ImageFormat, values};
use std::ops::Range;

/// An image as one document has it; a part is there if it is right.
pub struct OsImage {
    pub url: Option<String>,
    /// The URL as it is written.
    pub text: String,
    pub range: Range<usize>,
    /// Nothing if the document does not say.
    pub sha256: Option<Option<String>>,
    pub format: Option<Option<ImageFormat>>,
}

/// Takes the field; it may be left out or empty.
pub fn take(reader: &mut Reader, fields: &mut Fields, document: &Document) -> Option<OsImage> {
    let annotations = [IMAGE_SHA256, IMAGE_FORMAT].map(|key| document.annotation(key));
    let Some(location) = given(reader, fields, "osImageURL") else {
        for value in annotations.into_iter().flatten() {
            let problem = Problem::new(format!("there is no `osImageURL` in this {}", document.kind.as_str()));
            reader.refuse(&value.range, problem.hint("put the annotation beside the `osImageURL` that it is about"));
        }
        return None;
    };
    let text = reader.text(&location)?.to_owned();
    let url = reader.parse(&location, values::image_url);
    let [sha256, format] = annotations;
    let sha256 = match sha256 {
        Some(value) => reader.parse(value, values::sha256).map(Some),
        None => Some(None),
    };
    let format = match format {
        Some(value) => reader.parse(value, values::image_format).map(Some),
        None => Some(None),
    };
    Some(OsImage { url, text, range: location.range, sha256, format })
}

/// Whether the URL names a version of Kubernetes, `1.36`, in any of the ways that EKS Anywhere accepts.
pub fn names_version(url: &str, minor: &str) -> bool {
    let plain = |text: &str| text.replace(['.', '-', '_'], "");
    plain(url).contains(&plain(minor))
}

/// The patch release that EKS Anywhere's own image names begin with: `ubuntu-v1.36.4-eks-a-12-amd64.gz`.
pub fn patch_release(url: &str, minor: &str) -> Option<String> {
    let (_, rest) = url.split_once(&format!("v{minor}."))?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    values::kubernetes_version(&format!("v{minor}.{digits}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_the_names_that_images_have() {
        for url in ["http://a/ubuntu-2204-1.36.tgz", "http://a/u-1-36.gz", "http://a/u_1_36.gz", "http://a/u136.gz"] {
            assert!(names_version(url, "1.36"), "{url}");
            assert_eq!(patch_release(url, "1.36"), None);
        }
        assert!(!names_version("http://a/ubuntu-1.35.gz", "1.36"));
        let url = "http://a/ubuntu-v1.36.4-eks-a-12-amd64.gz";
        assert_eq!(patch_release(url, "1.36").as_deref(), Some("v1.36.4"));
        assert_eq!(patch_release("http://a/v1.36.x", "1.36"), None);
    }
}
