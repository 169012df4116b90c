//! What the compiler and clippy do not look at: which crates may be linked in (`deny.toml`), and
//! dependencies that nothing uses. Part of `make check`; prints one line a finding.

mod bans;
mod graph;
mod licences;
mod unused;

use std::{fs, io::Write, path::Path, process::ExitCode};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::graph::Graph;

/// The part of cargo-deny's configuration that is enforced here; its other keys are left to it.
#[derive(Deserialize)]
struct Rules {
    graph: Targets,
    licenses: licences::Rules,
    bans: bans::Rules,
    sources: bans::Sources,
}

#[derive(Deserialize)]
struct Targets {
    targets: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace is above this crate")?;
    let rules = fs::read_to_string(root.join("deny.toml")).context("deny.toml")?;
    let rules: Rules = toml::from_str(&rules).context("deny.toml")?;
    let graph = Graph::of(root, &rules.graph.targets)?;

    let mut findings = licences::check(&graph, &rules.licenses);
    findings.extend(bans::check(&graph, &rules.bans, &rules.sources));
    findings.extend(unused::check(&graph, root)?);

    let mut out = std::io::stdout().lock();
    for finding in &findings {
        writeln!(out, "{finding}")?;
    }
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
