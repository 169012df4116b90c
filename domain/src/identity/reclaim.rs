//! An account whose address turns out to be somebody else's than whoever made it.
//!
//! Through a provider that does not vouch for addresses anybody makes an account for anybody's. Until its
//! person comes by a mailed link, whoever made it is in it, and may have left ways back: keys, a second
//! factor that is not the person's, sign-ins.

use serde_json::json;
use streamspace_queue::Tx;

use super::{Error, User, people};
use crate::{
    api_keys,
    audit::{self, Entry},
    oidc, sign_in,
};

/// Takes all ways in away that were made before the person came, if whoever was in the account may have
/// been somebody else. The password is not among them: it is set by such a link alone. Needs the lock on
/// the person's row, so that nobody signs in meanwhile unseen.
pub(super) async fn from_strangers(tx: &mut Tx, user: &User) -> Result<(), Error> {
    let identities = oidc::forget_unproven(tx.conn().await?, user.tenant, user.id).await?;
    if identities == 0 {
        return Ok(());
    }
    let keys = api_keys::delete_of(tx, user.id).await?;
    sign_in::mfa::forget(tx, user.tenant, user.id).await?;
    // Guesses at that factor say nothing of the person.
    people::unlock(tx, user).await?;
    let sign_ins = sign_in::end_all(tx, user.tenant, user.id).await?;
    let reclaimed = Entry::new("users.reclaim", "user", user.id)
        .before(json!({ "mfaEnabled": user.mfa_enabled }))
        .after(json!({
            "mfaEnabled": false,
            "deletedIdentities": identities,
            "deletedKeys": keys,
            "endedSignIns": sign_ins,
        }));
    Ok(audit::record_in(tx, user.tenant, reclaimed).await?)
}
