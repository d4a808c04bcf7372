//! Asks BMCs what their machines are.

use crate::inventory::{BmcAccess, BmcKind};
use crate::power::{BmcError, Inventory, Redfish};
use futures::{StreamExt, stream};

/// BMCs that are asked at a time.
const AT_A_TIME: usize = 16;

/// A BMC, and what it says of its machine.
#[derive(Debug)]
pub struct Asked {
    /// The BMC.
    pub bmc: BmcAccess,
    /// Its answer; of IPMI none is expected.
    pub answer: Result<Option<Inventory>, BmcError>,
}

/// Asks all of them, and gives the answers in the same order; `say` is told each as it comes, and how many there are then.
pub async fn ask(bmcs: Vec<BmcAccess>, mut say: impl FnMut(&Asked, usize)) -> Vec<Asked> {
    let mut answers = stream::iter(bmcs.into_iter().enumerate())
        .map(async |(index, bmc)| (index, Asked { answer: inventory(&bmc).await, bmc }))
        .buffer_unordered(AT_A_TIME);
    let mut asked = Vec::new();
    while let Some((index, one)) = answers.next().await {
        say(&one, asked.len() + 1);
        asked.push((index, one));
    }
    asked.sort_by_key(|(index, _)| *index);
    asked.into_iter().map(|(_, one)| one).collect()
}

async fn inventory(bmc: &BmcAccess) -> Result<Option<Inventory>, BmcError> {
    match bmc.kind {
        BmcKind::Redfish => Redfish::new(bmc)?.inventory().await.map(Some),
        BmcKind::Ipmi => Ok(None),
    }
}
