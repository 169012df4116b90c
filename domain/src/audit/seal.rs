//! Sealing: which rows, in what order and how is the database's (`queue.seal_audit`), since only the
//! owner of the schema can write the chain.

use streamspace_queue::Queue;

use super::store;

/// Rows that one transaction seals.
const MOST: i32 = 2000;

/// Seals what can be sealed, the next few rows; answers how many those were. Rows younger than some
/// seconds wait: a transaction that is still running may add to them.
pub async fn seal(queue: &Queue) -> sqlx::Result<u64> {
    let mut tx = queue.db().begin().await?;
    let sealed = store::seal(&mut tx, MOST).await?;
    tx.commit().await?;
    Ok(sealed)
}
