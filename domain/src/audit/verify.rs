//! Whether the audit is what was sealed: every row is read again, in order, a few at a time.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use streamspace_common::TenantId;
use streamspace_queue::Tx;
use uuid::Uuid;

use super::{
    Error,
    store::{self, Found, Link, Position},
};
use crate::identity::{Permission, Require};

/// What was found when everything fits: the end of each chain, for whoever notes it down elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub chains: BTreeMap<TenantId, Chain>,
    pub rows: u64,
    /// Too young to be sealed.
    pub unsealed: u64,
    /// The first thing that does not fit; what comes after it was not read.
    pub breach: Option<Breach>,
}

/// The end of a tenant's chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub sequence: i64,
    pub hash: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Breach {
    /// It is not what was sealed.
    Changed { tenant: TenantId, row: Uuid, at: Timestamp },
    /// It was sealed and is gone.
    Missing { tenant: TenantId, row: Uuid },
    /// It was not there when its time was sealed.
    Inserted { tenant: TenantId, row: Uuid, at: Timestamp },
    /// A record of the chain itself.
    Chain { tenant: TenantId, sequence: i64 },
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { tenant, row, at } => {
                write!(f, "row {row} of tenant {tenant}, {at}, was changed after it was sealed")
            }
            Self::Missing { tenant, row } => {
                write!(f, "row {row} of tenant {tenant} was sealed and is gone")
            }
            Self::Inserted { tenant, row, at } => {
                write!(f, "row {row} of tenant {tenant}, {at}, was put in after that time was sealed")
            }
            Self::Chain { tenant, sequence } => {
                write!(f, "record {sequence} of the chain of tenant {tenant} does not fit the one before")
            }
        }
    }
}

/// Rows that are read in one go.
const STEP: i64 = 2000;

/// Reads the whole audit of every tenant against its chains, for those who operate the installation.
/// Rows may be added meanwhile.
pub async fn verify(tx: &mut Tx) -> Result<Report, Error> {
    tx.require(Permission::TenantsManage)?;
    Ok(read(tx.conn().await?).await?)
}

async fn read(conn: &mut PgConnection) -> sqlx::Result<Report> {
    let mut report = Report::default();
    let Some(horizon) = store::horizon(conn).await? else {
        report.unsealed = u64::try_from(store::unsealed(conn, beginning()).await?).unwrap_or(0);
        return Ok(report);
    };
    let (mut pass, mut from) = (0, horizon.start);
    while let Some(next) = store::next_pass(conn, pass).await? {
        pass = next;
        let (links, last) = store::links(conn, pass).await?;
        let Some(to) = last else { break };
        for link in &links {
            if let Some(breach) = follow(&mut report.chains, link) {
                report.breach = Some(breach);
                return Ok(report);
            }
        }
        // Of a month that was dropped only the anchors are left.
        if !is_before(from, to) {
            continue;
        }
        if let Some(breach) = compare(conn, links, from, to, &mut report.rows).await? {
            report.breach = Some(breach);
            return Ok(report);
        }
        from = to;
    }
    // The chain may have been cut off, and rows be left behind it that count as sealed.
    if is_before(from, horizon.sealed) {
        report.breach = compare(conn, Vec::new(), from, horizon.sealed, &mut report.rows).await?;
    }
    report.unsealed = u64::try_from(store::unsealed(conn, horizon.sealed).await?).unwrap_or(0);
    Ok(report)
}

fn beginning() -> Position {
    (Timestamp::UNIX_EPOCH.into(), Uuid::nil())
}

fn is_before(one: Position, other: Position) -> bool {
    (one.0.to_jiff(), one.1) < (other.0.to_jiff(), other.1)
}

/// The record continues its tenant's chain.
fn follow(chains: &mut BTreeMap<TenantId, Chain>, link: &Link) -> Option<Breach> {
    let breach = Breach::Chain { tenant: link.tenant, sequence: link.sequence };
    let Ok(hash) = <[u8; 32]>::try_from(link.hash.as_slice()) else { return Some(breach) };
    let before = chains.get(&link.tenant).map(|chain| (chain.sequence, chain.hash));
    // What an anchor stands for is gone: it is where the chain begins.
    if !(link.anchor && before.is_none()) {
        let (sequence, before) = before.unwrap_or_default();
        if link.anchor || link.sequence != sequence + 1 || hash_of(link, before) != hash {
            return Some(breach);
        }
    }
    chains.insert(link.tenant, Chain { sequence: link.sequence, hash });
    None
}

fn hash_of(link: &Link, before: [u8; 32]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(link.tenant.0.as_bytes());
    hash.update(link.sequence.to_be_bytes());
    for (id, row) in link.row_ids.iter().zip(link.row_hashes.chunks(32)) {
        hash.update(id.as_bytes());
        hash.update(row);
    }
    hash.finalize().into()
}

/// The rows of a pass are those that its records name, no fewer and no more.
async fn compare(
    conn: &mut PgConnection,
    links: Vec<Link>,
    mut from: Position,
    to: Position,
    rows: &mut u64,
) -> sqlx::Result<Option<Breach>> {
    let mut expected: BTreeMap<TenantId, VecDeque<(Uuid, Vec<u8>)>> = links
        .into_iter()
        .map(|link| {
            let rows = link.row_ids.into_iter().zip(link.row_hashes.chunks(32).map(<[u8]>::to_vec));
            (link.tenant, rows.collect())
        })
        .collect();
    loop {
        let found = store::found(conn, from, to, STEP).await?;
        let Some(last) = found.last() else { break };
        from = (last.at, last.id);
        for row in &found {
            if let Some(breach) = meet(expected.entry(row.tenant).or_default(), row) {
                return Ok(Some(breach));
            }
            *rows += 1;
        }
        if (found.len() as i64) < STEP {
            break;
        }
    }
    let missing = expected.iter().find_map(|(tenant, rows)| {
        rows.front().map(|(row, _)| Breach::Missing { tenant: *tenant, row: *row })
    });
    Ok(missing)
}

fn meet(expected: &mut VecDeque<(Uuid, Vec<u8>)>, row: &Found) -> Option<Breach> {
    let (tenant, at) = (row.tenant, row.at.to_jiff());
    match expected.front() {
        Some((id, hash)) if *id == row.id => {
            let is_same = *hash == row.hash;
            expected.pop_front();
            (!is_same).then_some(Breach::Changed { tenant, row: row.id, at })
        }
        Some((id, _)) if expected.iter().any(|(later, _)| *later == row.id) => {
            Some(Breach::Missing { tenant, row: *id })
        }
        _ => Some(Breach::Inserted { tenant, row: row.id, at }),
    }
}
