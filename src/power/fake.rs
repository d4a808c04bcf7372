//! A BMC for tests that misbehaves on request.

use super::{Bmc, BmcError, BmcIdentity, BootDevice};
use crate::hardware::{BootMode, PowerState};
use async_trait::async_trait;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const ADDRESS: &str = "fake";

/// How it takes its orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// As told.
    Good,
    /// Answers nothing.
    Dead,
    /// Each call takes this long; then as told.
    Slow(Duration),
    /// Refuses the account.
    WrongPassword,
    /// Takes every order and carries out none, so that the state is never as told.
    Lies,
}

/// What it was told and did.
#[derive(Debug, Default)]
struct Machine {
    on: bool,
    orders: Vec<String>,
}

/// A BMC in front of a machine that is only remembered; off at first.
#[derive(Debug)]
pub(crate) struct Fake {
    behaviour: Behaviour,
    machine: Mutex<Machine>,
}

impl Fake {
    pub(crate) fn new(behaviour: Behaviour) -> Self {
        Self { behaviour, machine: Mutex::default() }
    }

    /// The orders that it took, carried out or not: `power on`, `boot once from Pxe (uefi)`.
    pub(crate) fn orders(&self) -> Vec<String> {
        self.machine().orders.clone()
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self) -> Result<(), BmcError> {
        let bmc = ADDRESS.to_owned();
        match self.behaviour {
            Behaviour::Dead => Err(BmcError::Unreachable { bmc, reason: String::from("it is dead") }),
            Behaviour::WrongPassword => Err(BmcError::Unauthorized { bmc, user: String::from("admin") }),
            Behaviour::Slow(pause) => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            Behaviour::Good | Behaviour::Lies => Ok(()),
        }
    }

    async fn order(&self, order: String, carry_out: impl FnOnce(&mut Machine) + Send) -> Result<(), BmcError> {
        self.answer().await?;
        let mut machine = self.machine();
        machine.orders.push(order);
        if self.behaviour != Behaviour::Lies {
            carry_out(&mut machine);
        }
        Ok(())
    }
}

#[async_trait]
impl Bmc for Fake {
    async fn power_state(&self) -> Result<PowerState, BmcError> {
        self.answer().await?;
        Ok(if self.machine().on { PowerState::On } else { PowerState::Off })
    }

    async fn power_on(&self) -> Result<(), BmcError> {
        self.order(String::from("power on"), |machine| machine.on = true).await
    }

    async fn power_off(&self) -> Result<(), BmcError> {
        self.order(String::from("power off"), |machine| machine.on = false).await
    }

    async fn boot_once(&self, device: BootDevice, mode: BootMode) -> Result<(), BmcError> {
        self.order(format!("boot once from {device:?} ({mode})"), |_| {}).await
    }

    async fn insert_media(&self, url: &str) -> Result<(), BmcError> {
        self.order(format!("insert {url}"), |_| {}).await
    }

    async fn eject_media(&self) -> Result<(), BmcError> {
        self.order(String::from("eject"), |_| {}).await
    }

    async fn identity(&self) -> Result<BmcIdentity, BmcError> {
        self.answer().await?;
        Ok(BmcIdentity { vendor: Some(String::from("Fake")), ..BmcIdentity::default() })
    }
}
