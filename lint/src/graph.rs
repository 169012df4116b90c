//! What cargo knows: the packages that are linked for our targets, and who depends on whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

#[derive(Deserialize)]
pub struct Package {
    id: String,
    pub name: String,
    pub version: String,
    pub license: Option<String>,
    pub source: Option<String>,
    pub manifest_path: PathBuf,
    pub dependencies: Vec<Dependency>,
    #[serde(default)]
    pub metadata: serde_json::Value,
}

/// As the manifest says it.
#[derive(Deserialize)]
pub struct Dependency {
    pub name: String,
    pub rename: Option<String>,
    /// The versions that will do.
    pub req: String,
    /// None: of this workspace, by path.
    pub source: Option<String>,
    /// `None`, `dev` or `build`.
    pub kind: Option<String>,
}

impl Dependency {
    pub fn is_wildcard(&self) -> bool {
        self.source.is_some() && self.req == "*"
    }
}

pub struct Graph {
    pub packages: Vec<Package>,
    members: BTreeSet<String>,
    dependents: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    pub fn of(root: &Path, targets: &[String]) -> Result<Self> {
        let platforms = targets.iter().flat_map(|target| ["--filter-platform", target]);
        let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["metadata", "--format-version=1", "--locked"])
            .args(platforms)
            .current_dir(root)
            .output()
            .context("cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
        }
        let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cargo metadata's answer")?;

        let names: BTreeMap<&str, &str> =
            metadata.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
        let mut dependents: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let linked: BTreeSet<&str> = metadata.resolve.nodes.iter().map(|node| node.id.as_str()).collect();
        for node in &metadata.resolve.nodes {
            for dependency in &node.dependencies {
                dependents.entry(dependency.clone()).or_default().insert(names[node.id.as_str()].to_owned());
            }
        }
        let packages =
            metadata.packages.into_iter().filter(|package| linked.contains(package.id.as_str())).collect();
        Ok(Self { packages, members: metadata.workspace_members, dependents })
    }

    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.members.contains(&package.id))
    }

    /// Who names the package in a manifest.
    pub fn dependents(&self, package: &Package) -> impl Iterator<Item = &str> {
        self.dependents.get(&package.id).into_iter().flatten().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_a_version_that_says_nothing() {
        let of = |req: &str, source: Option<&str>| {
            let source = source.map(str::to_owned);
            Dependency { name: "a".to_owned(), rename: None, req: req.to_owned(), source, kind: None }
        };
        let registry = Some("registry+https://github.com/rust-lang/crates.io-index");
        assert!(of("*", registry).is_wildcard());
        assert!(!of("*", None).is_wildcard(), "by path");
        assert!(!of("^1.2", registry).is_wildcard());
    }
}
