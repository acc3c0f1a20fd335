//! The steps of the demo, as they are shown and as they are written to JSON.

use anyhow::{Context as _, Result};
use fabnic_lab::{Progress, Step};
use serde::Serialize;

/// One step and its result.
#[derive(Debug, Serialize)]
struct Done {
    name: String,
    ok: bool,
    value: Option<f64>,
    unit: Option<&'static str>,
}

/// All steps so far.
#[derive(Debug)]
pub(super) struct Steps {
    progress: Progress,
    done: Vec<Done>,
}

impl Steps {
    pub(super) fn new(progress: Progress) -> Self {
        Self { progress, done: Vec::new() }
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Runs a step that is done or not; what it gives is shown behind its name.
    pub(super) fn run(&mut self, name: &str, work: impl FnOnce(&Step) -> Result<String>) -> Result<()> {
        let step = self.progress.step(name);
        let result = work(&step);
        self.done.push(Done { name: name.to_owned(), ok: result.is_ok(), value: None, unit: None });
        step.done(result.with_context(|| name.to_owned())?);
        Ok(())
    }

    /// Runs a step that measures a value.
    pub(super) fn measure(
        &mut self,
        name: &str,
        unit: &'static str,
        work: impl FnOnce(&Step) -> Result<f64>,
    ) -> Result<f64> {
        let step = self.progress.step(name);
        let result = work(&step);
        let value = result.as_ref().ok().copied();
        self.done.push(Done { name: name.to_owned(), ok: result.is_ok(), value, unit: Some(unit) });
        let value = result.with_context(|| name.to_owned())?;
        step.done(format!("{value:.2} {unit}"));
        Ok(value)
    }

    /// Notes a step that was done elsewhere.
    pub(super) fn note(&mut self, name: &str, result: &str) {
        self.done.push(Done { name: name.to_owned(), ok: true, value: None, unit: None });
        self.progress.step(name).done(result);
    }

    pub(super) fn all_ok(&self) -> bool {
        !self.done.is_empty() && self.done.iter().all(|step| step.ok)
    }

    /// `{"ok": bool, "steps": [{"name", "ok", "value", "unit"}]}`.
    pub(super) fn json(&self, ok: bool) -> Result<String> {
        let whole = serde_json::json!({ "ok": ok, "steps": self.done });
        Ok(serde_json::to_string_pretty(&whole).context("cannot write JSON")? + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_is_told() {
        let mut steps = Steps::new(Progress::silent());
        steps.measure("ping", "ms", |_| Ok(0.25)).unwrap();
        assert!(steps.all_ok());
        assert!(steps.run("stop", |_| anyhow::bail!("it hangs")).is_err());
        assert!(!steps.all_ok());
        let json: serde_json::Value = serde_json::from_str(&steps.json(false).unwrap()).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["steps"][0]["value"], 0.25);
        assert_eq!(json["steps"][0]["unit"], "ms");
        assert_eq!(json["steps"][1]["name"], "stop");
        assert_eq!(json["steps"][1]["ok"], false);
        assert_eq!(json["steps"][1]["value"], serde_json::Value::Null);
    }
}
