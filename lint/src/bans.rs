//! Crates that may not be linked in, crates that are there twice, and where they come from.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::graph::{Graph, Package};

#[derive(Deserialize)]
pub struct Rules {
    deny: Vec<Denied>,
    skip: Vec<Skipped>,
}

#[derive(Deserialize)]
struct Denied {
    #[serde(rename = "crate")]
    name: String,
    /// Those that may depend on it all the same.
    #[serde(default)]
    wrappers: Vec<String>,
}

/// A version, `name@0.22`, that is accepted beside another.
#[derive(Deserialize)]
struct Skipped {
    #[serde(rename = "crate")]
    spec: String,
}

impl Skipped {
    fn covers(&self, package: &Package) -> bool {
        let version =
            self.spec.split_once('@').filter(|(name, _)| *name == package.name).map(|(_, version)| version);
        version.is_some_and(|version| format!("{}.", package.version).starts_with(&format!("{version}.")))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sources {
    allow_registry: Vec<String>,
}

pub fn check(graph: &Graph, rules: &Rules, sources: &Sources) -> Vec<String> {
    [denied(graph, rules), duplicates(graph, rules), wildcards(graph), strange_sources(graph, sources)]
        .concat()
}

fn denied(graph: &Graph, rules: &Rules) -> Vec<String> {
    let mut findings = Vec::new();
    for rule in &rules.deny {
        for package in graph.packages.iter().filter(|package| package.name == rule.name) {
            let strangers =
                graph.dependents(package).filter(|name| !rule.wrappers.iter().any(|wrapper| wrapper == name));
            findings.extend(strangers.map(|name| format!("{name} may not depend on {}", rule.name)));
        }
    }
    findings
}

fn duplicates(graph: &Graph, rules: &Rules) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
    for package in &graph.packages {
        versions.entry(&package.name).or_default().push(package);
    }
    versions.retain(|_, packages| packages.len() > 1);

    let duplicated = || versions.values().flatten();
    let stale = rules.skip.iter().filter(|skip| !duplicated().any(|package| skip.covers(package)));
    let mut findings: Vec<String> = stale
        .map(|skip| format!("deny.toml: {} is no duplicate any more; remove its line", skip.spec))
        .collect();
    for (name, packages) in &versions {
        let open: Vec<&&Package> =
            packages.iter().filter(|package| !rules.skip.iter().any(|skip| skip.covers(package))).collect();
        if open.len() > 1 {
            let told = open.iter().map(|package| {
                format!(
                    "{} (by {})",
                    package.version,
                    graph.dependents(package).collect::<Vec<_>>().join(", ")
                )
            });
            findings
                .push(format!("{name} is there more than once: {}", told.collect::<Vec<_>>().join(" and ")));
        }
    }
    findings
}

/// A dependency of ours that takes any version takes any surprise; those by path have none.
fn wildcards(graph: &Graph) -> Vec<String> {
    let mut findings = Vec::new();
    for member in graph.members() {
        let wild = member.dependencies.iter().filter(|dependency| dependency.is_wildcard());
        findings.extend(
            wild.map(|dependency| format!("{} takes any version of {}", member.name, dependency.name)),
        );
    }
    findings
}

fn strange_sources(graph: &Graph, sources: &Sources) -> Vec<String> {
    let strange = graph.packages.iter().filter_map(|package| {
        let source = package.source.as_deref()?; // none: a crate of this workspace
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        let known = sources.allow_registry.iter().any(|allowed| allowed == registry);
        (!known).then(|| format!("{} {} comes from {source}", package.name, package.version))
    });
    strange.collect()
}
