//! Dependencies that a manifest names and no source does. A crate that is needed without being
//! named (for a feature, or by a macro's output) stands under `[package.metadata.cargo-machete]`
//! `ignored`, as that tool has it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::graph::{Graph, Package};

pub fn check(graph: &Graph, root: &Path) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let mut named = BTreeSet::new();
    for member in graph.members() {
        findings.extend(unused_by(member)?);
        named.extend(member.dependencies.iter().map(|dependency| dependency.name.as_str()));
    }
    let manifest: toml::Table = fs::read_to_string(root.join("Cargo.toml"))?.parse().context("Cargo.toml")?;
    let shared = manifest["workspace"].get("dependencies").and_then(toml::Value::as_table);
    let leftovers = shared.into_iter().flatten().filter(|(name, _)| !named.contains(name.as_str()));
    findings.extend(leftovers.map(|(name, _)| format!("Cargo.toml: no crate uses {name}")));
    Ok(findings)
}

fn unused_by(member: &Package) -> Result<Vec<String>> {
    let folder = member.manifest_path.parent().context("a manifest is in a folder")?;
    let product = identifiers(&sources(&[folder.join("src"), folder.join("build.rs")]));
    let tests = identifiers(&sources(&["tests", "benches", "examples"].map(|name| folder.join(name))));
    let ignored = member.metadata["cargo-machete"]["ignored"].as_array().cloned().unwrap_or_default();

    let unused = member.dependencies.iter().filter(|dependency| {
        let name = dependency.rename.as_ref().unwrap_or(&dependency.name);
        let identifier = name.replace('-', "_");
        let used = product.contains(&identifier) || dependency.kind.is_some() && tests.contains(&identifier);
        !used && !ignored.iter().any(|ignored| ignored == name.as_str())
    });
    Ok(unused.map(|dependency| format!("{} does not use {}", member.name, dependency.name)).collect())
}

/// The Rust sources at and below each place.
fn sources(places: &[PathBuf]) -> Vec<String> {
    let mut open = places.to_vec();
    let mut texts = Vec::new();
    while let Some(place) = open.pop() {
        if let Ok(entries) = fs::read_dir(&place) {
            open.extend(entries.flatten().map(|entry| entry.path()));
        } else if place.extension().is_some_and(|extension| extension == "rs") {
            texts.extend(fs::read_to_string(&place));
        }
    }
    texts
}

/// Words of the code; a crate that only a comment names is not used.
fn identifiers(texts: &[String]) -> BTreeSet<String> {
    let lines =
        texts.iter().flat_map(|text| text.lines()).filter(|line| !line.trim_start().starts_with("//"));
    let words = lines.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
    words.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_no_use() {
        let found = identifiers(&["// uses serde_json\nuse tokio::time;\n#[async_trait]".to_owned()]);
        assert!(found.contains("tokio") && found.contains("async_trait"));
        assert!(!found.contains("serde_json"));
    }
}
