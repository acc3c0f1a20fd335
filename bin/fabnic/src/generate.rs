//! Pages of `docs/` that are made from the program: man pages, completions, the command reference, and, because this
//! is the one program that knows both, the configuration reference and the OpenAPI document.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Args;

/// A page: its path under `docs/`, and its bytes.
pub(crate) type Page = (PathBuf, Vec<u8>);

/// The program's grammar as the pages show it: without the hidden commands and this machine's environment.
fn grammar() -> Command {
    let mut command = Args::command();
    command.build();
    command
}

fn man_pages() -> Result<Vec<Page>> {
    fn add(command: &Command, name: &str, pages: &mut Vec<Page>) -> Result<()> {
        let mut page = Vec::new();
        let titled = command.clone().display_name(name.to_owned());
        clap_mangen::Man::new(titled).render(&mut page)?;
        pages.push((PathBuf::from(format!("{name}.1")), page));
        for sub in command.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
            add(sub, &format!("{name}-{}", sub.get_name()), pages)?;
        }
        Ok(())
    }
    let mut pages = Vec::new();
    add(&grammar(), "fabnic", &mut pages)?;
    Ok(pages)
}

fn completions() -> Vec<Page> {
    [(Shell::Bash, "fabnic.bash"), (Shell::Zsh, "_fabnic"), (Shell::Fish, "fabnic.fish")]
        .into_iter()
        .map(|(shell, name)| {
            let mut page = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "fabnic", &mut page);
            (Path::new("completions").join(name), page)
        })
        .collect()
}

const COMMANDS: &str = "\
# Command line

`fabnic` talks to `fabnicd` over the Unix socket of its API (`--api`, or the environment variable `FABNIC_API`). Words
after a name are pairs of a key and a value, as in `ip` and `bridge`; keys are those of the
[configuration](configuration.md). Every command that shows or changes something has `--json`, which prints the API's
answer as it came ([openapi.json](openapi.json) describes it). Changes are all or nothing, and `--dry-run` says what
would change.

```console
$ fabnic port add vm1 nic virtio-net socket /run/fabnic/vm1.sock mac 52:54:00:00:00:01 vlan 10
$ fabnic port set vm1 state disable
$ fabnic fdb add 52:54:00:00:00:99 port up0 vlan 10
$ fabnic fdb del port vm1 learned
$ fabnic stats show vm1 --watch
$ fabnic capture vm1 -w - | tcpdump -r -
$ fabnic apply /etc/fabnic/fabnic.toml --dry-run
```

What is changed this way is in force at once. Whether it outlives the daemon is the daemon's affair: with a state file
(`fabnicd --state`, or systemd's state directory) it does, until the configuration file itself is changed. `fabnic
config show` prints what runs in the file's own form.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | the daemon refused, or the answer could not be used |
| 2 | the command line is wrong |
| 3 | no daemon could be reached |

Errors say where, what is wrong and what was expected, one line each, on standard error.
";

fn commands() -> Page {
    fn add(page: &mut String, command: &mut Command, path: &str) {
        let subs: Vec<String> = command
            .get_subcommands()
            .filter(|s| !s.is_hide_set() && s.get_name() != "help")
            .map(|s| s.get_name().to_owned())
            .collect();
        if subs.is_empty() {
            let usage = command.render_usage().to_string();
            let usage = usage.trim_start_matches("Usage: ").trim();
            // Writing to a string does not fail.
            let _ = write!(page, "\n## `{path}`\n\n");
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(page, "{about}.\n\n```text\n{usage}\n```\n");
            for arg in command.get_arguments().filter(|a| !a.is_hide_set() && !a.is_global_set()) {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                if arg.get_id() != "help" && arg.get_id() != "version" {
                    let _ = writeln!(page, "- `{}` {help}", arg_name(arg));
                }
            }
            if let Some(after) = command.get_after_help() {
                let _ = writeln!(page, "\n```text\n{after}\n```");
            }
        }
        for name in subs {
            if let Some(sub) = command.find_subcommand_mut(&name) {
                add(page, sub, &format!("{path} {name}"));
            }
        }
    }
    let mut page = String::from(COMMANDS);
    add(&mut page, &mut grammar(), "fabnic");
    (PathBuf::from("cli.md"), page.into_bytes())
}

fn arg_name(arg: &clap::Arg) -> String {
    let value = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    match (arg.get_long(), value.filter(|_| arg.get_action().takes_values())) {
        (Some(long), Some(value)) => format!("--{long} {value}"),
        (Some(long), None) => format!("--{long}"),
        (None, value) => value.unwrap_or_else(|| arg.get_id().to_string()),
    }
}

/// All generated pages of `docs/`.
pub(crate) fn pages() -> Result<Vec<Page>> {
    let mut pages: Vec<Page> =
        man_pages()?.into_iter().map(|(name, page)| (Path::new("man").join(name), page)).collect();
    pages.extend(completions());
    pages.push(commands());
    pages.push(("configuration.md".into(), fabnic_model::reference::markdown().into_bytes()));
    pages.push(("openapi.json".into(), fabnic_api::openapi().into_bytes()));
    Ok(pages)
}

fn write(dir: &Path, pages: &[Page]) -> Result<()> {
    for (name, page) in pages {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        fs::write(&path, page).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// `fabnic man DIR`.
pub(crate) fn man(dir: &Path) -> Result<()> {
    write(dir, &man_pages()?)
}

/// `fabnic gen DIR`.
pub(crate) fn docs(dir: &Path) -> Result<()> {
    write(dir, &pages()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_in_the_repository_are_these() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let mut differing = Vec::new();
        let pages = pages().unwrap();
        for (name, page) in &pages {
            if fs::read(docs.join(name)).unwrap_or_default() != *page {
                differing.push(name.display().to_string());
            }
        }
        for kept in fs::read_dir(docs.join("man")).into_iter().flatten().flatten() {
            let name = Path::new("man").join(kept.file_name());
            // The daemon's page is written by hand.
            if name != Path::new("man/fabnicd.8") && !pages.iter().any(|(page, _)| *page == name) {
                differing.push(format!("{} (no longer made)", name.display()));
            }
        }
        assert!(differing.is_empty(), "run `cargo run -p fabnic -- gen docs`: {differing:?}");
    }
}
