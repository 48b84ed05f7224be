//! `edit-config`: changes the dynamic configuration, by options, by a file, or in an editor.

use std::path::Path;

use anyhow::{Context, bail};
use pgward_core::config::{DynamicConfig, patch, read_value};
use pgward_core::json;
use pgward_store::{Condition, Key};
use serde_json::{Map, Value};

use super::args::EditConfigArguments;
use super::terminal::{Terminal, confirm};
use super::world::{ClusterName, World};
use super::yaml::{self, Layout};

/// Below this path a name is one key, whatever dots it has: `pg_stat_statements.track`.
const PARAMETERS: [&str; 2] = ["postgresql", "parameters"];

/// Shows what would change, asks, and stores it unless somebody else was faster.
///
/// # Errors
/// When the change cannot be read or makes no sense, or when the store does not take it.
pub(super) async fn edit_config(
    wanted: &EditConfigArguments,
    name: &ClusterName,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    let cluster = world.read(name).await?;
    let Some(config) = &cluster.config else {
        bail!("The config key does not exist in the cluster {}", name.scope);
    };
    let before = text_of(&config.value);
    let changed = changed(wanted, &config.value, name, world)?;
    let after = text_of(&changed);
    if before == after {
        return if wanted.quiet { Ok(()) } else { Ok(terminal.print("Not changed\n")?) };
    }
    if !wanted.quiet {
        let is_screen = terminal.is_screen();
        terminal.print(&difference(&before, &after, is_screen))?;
    }
    DynamicConfig::check_change(Some(&config.value), &changed)?;
    let reads_input = [&wanted.apply, &wanted.replace].iter().any(|file| file.as_deref() == Some(Path::new("-")));
    if !wanted.force {
        if reads_input {
            return Ok(terminal.print("Use --force option to apply changes\n")?);
        }
        if !confirm(terminal, "Apply these changes?")? {
            return Ok(());
        }
    }
    let value = json::compact(&changed);
    if !world.write(name, &Key::Config, &value, Condition::Revision(config.revision)).await? {
        bail!("Config modification aborted due to concurrent changes");
    }
    Ok(terminal.print("Configuration changed\n")?)
}

/// The configuration with everything applied that was asked for, in the order of patronictl.
fn changed(
    wanted: &EditConfigArguments,
    present: &Map<String, Value>,
    name: &ClusterName,
    world: &impl World,
) -> anyhow::Result<Map<String, Value>> {
    let mut document = present.clone();
    let mut is_edited = false;
    if let Some(path) = &wanted.replace {
        document = mapping(&path.display().to_string(), &world.read_text(path)?)?;
        is_edited = true;
    }
    if let Some(path) = &wanted.apply {
        patch(&mut document, &mapping(&path.display().to_string(), &world.read_text(path)?)?);
        is_edited = true;
    }
    let prefixed = |setting: &String| format!("{}.{setting}", PARAMETERS.join("."));
    for setting in wanted.set.iter().cloned().chain(wanted.pg.iter().map(prefixed)) {
        let (path, value) =
            setting.split_once('=').with_context(|| format!("Invalid parameter setting {}", shown(&setting)))?;
        let value = read_value(path, value).map_err(|finding| anyhow::anyhow!("{finding}"))?;
        set(&mut document, &keys(path), value);
        is_edited = true;
    }
    if is_edited {
        return Ok(document);
    }
    mapping("the edited text", &world.edit(&text_of(present), name)?)
}

/// A setting of `-p` as it was typed.
fn shown(setting: &str) -> &str {
    setting.strip_prefix("postgresql.parameters.").unwrap_or(setting)
}

fn mapping(source: &str, text: &str) -> anyhow::Result<Map<String, Value>> {
    match read_value(source, text).map_err(|finding| anyhow::anyhow!("{finding}"))? {
        Value::Object(document) => Ok(document),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            bail!("{source} does not hold a mapping of keys to values")
        }
    }
}

fn keys(path: &str) -> Vec<&str> {
    match path.strip_prefix("postgresql.parameters.") {
        Some(parameter) => PARAMETERS.into_iter().chain([parameter]).collect(),
        None => path.split('.').collect(),
    }
}

/// Sets a value below a path of keys. Null removes it, and then what it leaves empty.
fn set(document: &mut Map<String, Value>, path: &[&str], value: Value) {
    let Some((key, below)) = path.split_first() else { return };
    if below.is_empty() {
        match value {
            Value::Null => drop(document.shift_remove(*key)),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                document.insert((*key).to_owned(), value);
            }
        }
        return;
    }
    let removes = value.is_null();
    let inner = document.entry(*key).or_insert_with(|| Value::Object(Map::new()));
    if !inner.is_object() {
        if removes {
            return;
        }
        *inner = Value::Object(Map::new());
    }
    if let Value::Object(inner) = inner {
        set(inner, below, value);
        if removes && inner.is_empty() {
            document.shift_remove(*key);
        }
    }
}

fn text_of(document: &Map<String, Value>) -> String {
    yaml::write(&Value::Object(document.clone()), Layout::Block)
}

/// The lines that differ, with three around them; in colours for a person.
fn difference(before: &str, after: &str, in_colour: bool) -> String {
    let diff = similar::TextDiff::from_lines(before, after);
    let plain = diff.unified_diff().context_radius(3).header("", "").to_string();
    if !in_colour {
        return plain;
    }
    let paint = |line: &str| match line.as_bytes().first() {
        Some(b'+') => format!("\x1b[32m{line}\x1b[0m\n"),
        Some(b'-') => format!("\x1b[31m{line}\x1b[0m\n"),
        Some(b'@') => format!("\x1b[36m{line}\x1b[0m\n"),
        Some(_) | None => format!("{line}\n"),
    };
    plain.lines().map(paint).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_of_keys_sets_and_removes() {
        for (name, document, path, value, want) in [
            ("new", json!({}), "a.b", json!(1), json!({"a": {"b": 1}})),
            ("over a scalar", json!({"a": 1}), "a.b", json!(1), json!({"a": {"b": 1}})),
            ("emptied parents go", json!({"a": {"b": {"c": 1}}, "d": 1}), "a.b.c", json!(null), json!({"d": 1})),
            ("filled ones stay", json!({"a": {"b": 1, "c": 2}}), "a.b", json!(null), json!({"a": {"c": 2}})),
            ("nothing to remove", json!({"a": 1}), "a.b", json!(null), json!({"a": 1})),
            ("nothing to remove, nothing made", json!({}), "a.b", json!(null), json!({})),
            (
                "a parameter with a dot",
                json!({}),
                "postgresql.parameters.pg_stat_statements.track",
                json!("all"),
                json!({"postgresql": {"parameters": {"pg_stat_statements.track": "all"}}}),
            ),
        ] {
            let mut document = document.as_object().unwrap().clone();
            set(&mut document, &keys(path), value);
            assert_eq!(Value::Object(document), want, "{name}");
        }
    }

    #[test]
    fn a_difference_is_coloured_for_a_person_only() {
        assert_eq!(difference("a: 1\n", "a: 2\n", false), "--- \n+++ \n@@ -1 +1 @@\n-a: 1\n+a: 2\n");
        assert!(difference("a: 1\n", "a: 2\n", true).contains("\x1b[31m-a: 1\x1b[0m\n\x1b[32m+a: 2\x1b[0m\n"));
    }
}
