//! How much is compared, and what came of it.

use std::cell::RefCell;

use anyhow::{Result, anyhow, ensure};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

/// How many cases are tried, instead of what a test tries by itself. They are other ones each time then.
pub const CASES: &str = "FABNIC_ORACLE_CASES";

/// What was compared, and found the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Random configurations.
    pub cases: u64,
    /// Frames that went into both.
    pub frames: u64,
    /// Frames that left the kernel.
    pub copies: u64,
    /// Frames that a rule matched, for each rule.
    pub hits: u64,
}

impl core::fmt::Display for Verdict {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Verdict { cases, frames, copies, hits } = self;
        write!(f, "the same: {cases} cases, {frames} frames in, {copies} out")?;
        if *hits > 0 { write!(f, ", {hits} matches of rules") } else { Ok(()) }
    }
}

impl core::ops::Add for Verdict {
    type Output = Verdict;

    fn add(self, more: Verdict) -> Verdict {
        Verdict {
            cases: self.cases + more.cases,
            frames: self.frames + more.frames,
            copies: self.copies + more.copies,
            hits: self.hits + more.hits,
        }
    }
}

impl Verdict {
    /// Counts a frame and what left the kernel for it.
    pub(crate) fn count(&mut self, kernel: &[Vec<Vec<u8>>]) {
        self.frames += 1;
        self.copies += kernel.iter().map(Vec::len).sum::<usize>() as u64;
    }
}

/// Gives random cases to `run`, which fails where the two differ and counts what it compared. Fails with the smallest case
/// that could be found, and if so little left the kernel that nothing can have been compared.
pub(crate) fn compare<S: Strategy>(
    cases: u32,
    strategy: &S,
    run: impl FnMut(S::Value, &mut Verdict) -> Result<()>,
) -> Result<Verdict> {
    let asked = std::env::var(CASES).ok().and_then(|cases| cases.parse().ok());
    let config = Config {
        cases: asked.unwrap_or(cases),
        // A machine that checks changes checks the same each time; who asks for more asks for other ones.
        rng_seed: if asked.is_some() { RngSeed::Random } else { RngSeed::Fixed(1) },
        max_shrink_iters: 200,
        // A guest is slow; a case that is not the smallest will do.
        max_shrink_time: 60_000,
        failure_persistence: None,
        ..Config::default()
    };
    let state = RefCell::new((run, Verdict::default()));
    let outcome = TestRunner::new(config).run(strategy, |case| {
        let (run, verdict) = &mut *state.borrow_mut();
        verdict.cases += 1;
        run(case, verdict).map_err(|error| TestCaseError::fail(format!("{error:#}")))
    });
    outcome.map_err(|error| anyhow!("{error}"))?;
    let (_, verdict) = state.into_inner();
    ensure!(verdict.copies > 4 * verdict.cases, "{verdict}: what was compared?");
    Ok(verdict)
}

/// Fails unless both sent the same out of each port, whatever the order.
pub(crate) fn same(
    mut own: Vec<Vec<Vec<u8>>>,
    mut kernel: Vec<Vec<Vec<u8>>>,
    what: impl FnOnce() -> String,
) -> Result<()> {
    own.iter_mut().chain(&mut kernel).for_each(|frames| frames.sort());
    for (port, (own, kernel)) in own.iter().zip(&kernel).enumerate() {
        ensure!(
            own == kernel,
            "{}\n to port {port}\n  switch {}\n  kernel {}",
            what(),
            hex(own),
            hex(kernel)
        );
    }
    ensure!(own.len() == kernel.len(), "{} ports beside {} of the kernel", own.len(), kernel.len());
    Ok(())
}

/// Frames as people compare them.
fn hex(frames: &[Vec<u8>]) -> String {
    let one = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if frames.is_empty() {
        "nothing".to_owned()
    } else {
        frames.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}
