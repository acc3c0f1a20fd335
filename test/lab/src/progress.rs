//! Progress of long steps: spinners on a terminal, plain lines elsewhere (CI logs).

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows long steps as they go.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    quiet: bool,
}

impl Progress {
    /// Progress on standard error.
    pub fn new() -> Self {
        Self::default()
    }

    /// Progress that shows nothing.
    pub fn silent() -> Self {
        Self { quiet: true }
    }

    /// Begins a step. It ends with [`Step::done`], or as failed when it is dropped before.
    pub fn step(&self, name: impl Into<String>) -> Step {
        let name = name.into();
        let bar = if !self.quiet && std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) =
                ProgressStyle::with_template("  {spinner:.cyan} {prefix} {elapsed:.dim} {wide_msg:.dim}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            Some(bar)
        } else {
            if !self.quiet {
                eprintln!("  ... {name}");
            }
            None
        };
        Step { name, bar, quiet: self.quiet, began: Instant::now(), ended: false }
    }
}

/// One step that is under way.
#[derive(Debug)]
pub struct Step {
    name: String,
    bar: Option<ProgressBar>,
    quiet: bool,
    began: Instant,
    ended: bool,
}

impl Step {
    /// Shows what the step is doing right now (terminal only).
    pub fn say(&self, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(message.chars().filter(|c| !c.is_control()).take(200).collect::<String>());
        }
    }

    /// Ends the step well; `result` is shown behind its name.
    pub fn done(mut self, result: impl AsRef<str>) {
        self.end("ok", result.as_ref());
    }

    fn end(&mut self, mark: &str, result: &str) {
        self.ended = true;
        let separator = if result.is_empty() { "" } else { ": " };
        let line = format!(
            "  {mark:<4} {}{separator}{result} ({:.1} s)",
            self.name,
            self.began.elapsed().as_secs_f64()
        );
        match &self.bar {
            Some(bar) => {
                bar.finish_and_clear();
                eprintln!("{line}");
            }
            None if !self.quiet => eprintln!("{line}"),
            None => {}
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end("FAIL", "");
        }
    }
}
