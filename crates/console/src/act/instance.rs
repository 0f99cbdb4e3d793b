//! Members, as the user.

use kube::Client;

use crate::{app::Cx, error::Fail};

/// The member as the user.
///
/// # Errors
/// If it cannot be reached.
pub fn writer(cx: &Cx, cluster: &str) -> Result<Client, Fail> {
    let access = cx.app.model.access(cluster).ok_or(Fail::NotFound)?;
    cx.session.on_member(cluster, access)
}
