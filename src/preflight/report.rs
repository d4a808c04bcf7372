//! What was found, and how it is shown.

use super::Name;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt::{self, Write};

/// What a finding means for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It would fail.
    Failed,
    /// It can go on, but the user should know.
    Warning,
    /// It was not looked at.
    Skipped,
    /// It is right.
    Passed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Failed => "FAILED",
            Self::Warning => "warning",
            Self::Skipped => "skipped",
            Self::Passed => "ok",
        })
    }
}

/// One thing that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What it means.
    pub verdict: Verdict,
    /// The machine or thing that it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What was seen.
    pub reason: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_out: Option<String>,
}

impl Finding {
    /// Something that is right.
    pub fn passed(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Passed, object: None, reason: reason.into(), way_out: None }
    }

    /// Something that was not looked at.
    pub fn skipped(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, ..Self::passed(reason) }
    }

    /// Something in the way.
    pub fn failed(object: impl Into<String>, reason: impl Into<String>, way_out: impl Into<String>) -> Self {
        let (object, way_out) = (Some(object.into()), Some(way_out.into()));
        Self { verdict: Verdict::Failed, object, reason: reason.into(), way_out }
    }

    /// Something that the user should know.
    pub fn warning(object: impl Into<String>, reason: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, ..Self::failed(object, reason, way_out) }
    }

    /// The same, but not in the way.
    pub fn no_more_than_warning(self) -> Self {
        Self { verdict: self.verdict.max(Verdict::Warning), ..self }
    }
}

/// All that was found, in the order of the checks; what is worst comes first within each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report(Vec<(Name, Finding)>);

impl Report {
    pub(super) fn new(findings: impl IntoIterator<Item = (Name, Finding)>) -> Self {
        let mut findings: Vec<(Name, Finding)> = findings.into_iter().collect();
        findings.sort_by_key(|(check, finding)| (*check, finding.verdict));
        Self(findings)
    }

    /// The findings.
    pub fn findings(&self) -> impl Iterator<Item = &(Name, Finding)> + Clone {
        self.0.iter()
    }

    /// How many there are of one verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.0.iter().filter(|(_, finding)| finding.verdict == verdict).count()
    }

    /// `2 things are in the way`, if anything is.
    pub fn in_the_way(&self) -> Option<String> {
        match self.count(Verdict::Failed) {
            0 => None,
            1 => Some(String::from("1 thing is in the way")),
            count => Some(format!("{count} things are in the way")),
        }
    }

    /// An error if anything failed.
    pub fn into_result(self) -> Result<(), PreflightFailed> {
        self.in_the_way().map_or(Ok(()), |summary| Err(PreflightFailed { summary, report: self }))
    }

    /// As a table: check, verdict, object, reason, and the way out below it.
    pub fn text(&self) -> String {
        table(self.findings())
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Row<'a> {
            check: Name,
            #[serde(flatten)]
            finding: &'a Finding,
        }
        serializer.collect_seq(self.findings().map(|(check, finding)| Row { check: *check, finding }))
    }
}

fn table<'a>(findings: impl Iterator<Item = &'a (Name, Finding)> + Clone) -> String {
    let object = |finding: &'a Finding| finding.object.as_deref().unwrap_or("-");
    let width = findings.clone().map(|(_, finding)| object(finding).chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for (check, finding) in findings {
        let (check, verdict) = (check.to_string(), finding.verdict);
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{check:<9}  {verdict:<7}  {:<width$}  {}", object(finding), finding.reason);
        if let Some(way_out) = &finding.way_out {
            let _ = writeln!(text, "{:<9}  {:<7}  {:<width$}  way out: {way_out}", "", "", "");
        }
    }
    text
}

/// Something is in the way of a run.
#[derive(Clone, Debug, thiserror::Error)]
pub struct PreflightFailed {
    summary: String,
    report: Report,
}

impl fmt::Display for PreflightFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.report.findings().filter(|(_, finding)| finding.verdict == Verdict::Failed);
        write!(f, "{} (--skip CHECK leaves a check out)\n{}", self.summary, table(failed).trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn the_worst_is_first_and_the_error_names_only_what_failed() {
        let report = Report::new([
            (Name::Ports, Finding::skipped("left out by --skip")),
            (Name::Addresses, Finding::passed("3 addresses are free")),
            (Name::Addresses, Finding::failed("node-1", "10.0.0.5 is held by another", "free it")),
        ]);
        assert_eq!(
            report.text(),
            "addresses  FAILED   node-1  10.0.0.5 is held by another\n\
             \u{20}                           way out: free it\n\
             addresses  ok       -       3 addresses are free\n\
             ports      skipped  -       left out by --skip\n"
        );
        let error = report.into_result().unwrap_err().to_string();
        assert!(
            error.starts_with("1 thing is in the way (--skip CHECK leaves a check out)\naddresses  FAILED"),
            "{error}"
        );
        assert!(error.ends_with("way out: free it"), "{error}");
    }

    #[test]
    fn what_is_wrong_can_be_made_less_but_not_more() {
        let less = |finding: Finding| finding.no_more_than_warning().verdict;
        assert_eq!(less(Finding::failed("a", "b", "c")), Verdict::Warning);
        assert_eq!(less(Finding::passed("a")), Verdict::Passed);
    }
}
