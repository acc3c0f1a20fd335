//! Network namespaces: the "host" that VMs talk to, and every other place where tests send traffic.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Result;

use crate::{Janitor, Launch, output, process::Child};

/// A named network namespace with its loopback up; gone when dropped or when this process ends.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    janitor: Option<Janitor>,
}

impl Namespace {
    /// Makes one, named after `purpose` and this process.
    ///
    /// # Errors
    /// If this process may not (root is needed) or `ip` is missing.
    pub fn create(purpose: &str) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("fabnic-{purpose}-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        output(Launch::on_host("ip").args(["netns", "add", &name]))?;
        let janitor = Janitor::hire(&format!("ip netns del {name}"))?;
        let namespace = Self { name, janitor: Some(janitor) };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Its name, for `ip netns exec`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip ARGS` inside.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        output(Launch::on_host("ip").args(["-n", &self.name]).args(args))
    }

    /// Starts a program inside.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&self, launch: &mut Launch) -> Result<Child> {
        launch.in_netns(&self.name).spawn()
    }

    /// Leaves the namespace behind (`demo --keep`).
    pub fn keep(mut self) {
        if let Some(janitor) = self.janitor.take() {
            janitor.dismiss();
        }
    }
}
