//! The desktop's keyring, where there is one. It is asked by `secret-tool`, the Secret Service's own
//! program: docs/decisions/0011 has the figures. Secrets pass through its standard input and output
//! alone; its arguments, which everybody on the machine can see, name the server.

use std::{
    env,
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use streamspace_common::Secret;
use tokio::{io::AsyncWriteExt, process::Command};
use url::Url;

const PROGRAM: &str = "secret-tool";
/// A locked keyring asks its person for a password first.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct Keyring {
    program: PathBuf,
}

impl Keyring {
    /// `None`: this session has none, or nothing to ask it by.
    pub fn find() -> Option<Self> {
        let has_bus = env::var_os("DBUS_SESSION_BUS_ADDRESS").is_some()
            || env::var_os("XDG_RUNTIME_DIR").is_some_and(|dir| Path::new(&dir).join("bus").exists());
        let program = find_program(PROGRAM).filter(|_| has_bus)?;
        Some(Self { program })
    }

    /// Keeps it, and reads it back: what a keyring can't give again is not kept.
    pub async fn put(&self, url: &Url, text: &Secret<String>) -> Result<()> {
        self.run("store", &["--label", &format!("StreamSpace {url}")], url, Some(text)).await?;
        match self.get(url).await? {
            Some(kept) if kept == *text => Ok(()),
            _ => bail!("the keyring does not give back what it was given"),
        }
    }

    pub async fn get(&self, url: &Url) -> Result<Option<Secret<String>>> {
        let text = self.run("lookup", &[], url, None).await?;
        Ok(Some(text).filter(|text| !text.expose().is_empty()))
    }

    pub async fn remove(&self, url: &Url) -> Result<()> {
        self.run("clear", &[], url, None).await.map(drop)
    }

    async fn run(
        &self,
        verb: &str,
        options: &[&str],
        url: &Url,
        input: Option<&Secret<String>>,
    ) -> Result<Secret<String>> {
        let mut command = Command::new(&self.program);
        command.arg(verb).args(options).args(["application", "streamspace", "server", url.as_str()]);
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let run = async {
            let mut child = command.spawn()?;
            if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
                stdin.write_all(input.expose().as_bytes()).await?;
            }
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(PATIENCE, run)
            .await
            .with_context(|| format!("the keyring has not answered within {} s", PATIENCE.as_secs()))?
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        // Where nothing is found it fails and says nothing.
        if !output.status.success() && !said.trim().is_empty() {
            bail!("{}", said.trim());
        }
        if !output.status.success() && verb == "store" {
            bail!("{PROGRAM} ended with {}", output.status);
        }
        Ok(Secret::new(String::from_utf8(output.stdout).context("the keyring's answer is not text")?))
    }
}

/// On the path, as a shell finds it.
pub fn find_program(name: impl AsRef<OsStr>) -> Option<PathBuf> {
    let may_run = |path: &PathBuf| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    let path = env::var_os("PATH")?;
    env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(name.as_ref())).find(may_run)
}
