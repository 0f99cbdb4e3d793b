//! Every path there is, as patterns. What is not among them is not served, so that who walks over these lists (the
//! test of who may see what does) has met everything.

/// Pages, by GET.
pub const PAGES: &[&str] = &[
    "/",
    "/fleet",
    "/services",
    "/services/{tenant}",
    "/services/{tenant}/{app}",
    "/groups/{tenant}/{group}",
    "/groups/{tenant}/{group}/release",
    "/groups/{tenant}/{group}/scale",
    "/groups/{tenant}/{group}/instances",
    "/releases",
    "/releases/{tenant}/{release}",
    "/releases/{tenant}/{release}/{press}",
    "/instances/{cluster}/{tenant}/{instance}",
    "/nodes",
    "/nodes/{cluster}/{node}",
    "/nodes/{cluster}/{node}/{act}",
    "/lines",
    "/records",
    "/create",
    "/create/policy",
    "/create/notification",
    "/policies",
    "/policies/{cluster}/{policy}",
    "/policies/{cluster}/{policy}/delete",
    "/quotas",
    "/quotas/{cluster}/{tenant}/{kind}/{quota}",
    "/tenants/{tenant}",
    "/notifications",
    "/notifications/{tenant}/{hook}",
    "/settings",
];

/// Forms, by POST, with the session's token.
pub const FORMS: &[&str] = &[
    "/groups/{tenant}/{group}/plan",
    "/groups/{tenant}/{group}/release",
    "/groups/{tenant}/{group}/scale",
    "/groups/{tenant}/{group}/scale/cancel",
    "/groups/{tenant}/{group}/instances",
    "/releases/{tenant}/{release}/{press}",
    "/instances/{cluster}/{tenant}/{instance}/placement",
    "/nodes/{cluster}/{node}/{act}",
    "/lines",
    "/lines/{line}/go",
    "/create",
    "/create/sync",
    "/create/policy",
    "/create/policy/check",
    "/create/notification",
    "/create/notification/check",
    "/policies/trial",
    "/policies/{cluster}/{policy}",
    "/policies/{cluster}/{policy}/check",
    "/policies/{cluster}/{policy}/delete",
    "/quotas/{cluster}/{tenant}/{kind}/{quota}",
    "/quotas/{cluster}/{tenant}/{kind}/{quota}/check",
    "/tenants/{tenant}",
    "/tenants/{tenant}/check",
    "/notifications/{tenant}/{hook}",
    "/notifications/{tenant}/{hook}/check",
    "/notifications/{tenant}/{hook}/test",
    "/settings/token",
];

/// Logs of an instance, as they are written.
pub const LOGS: &str = "/logs/{cluster}/{tenant}/{instance}";
/// Those of a Group.
pub const GROUP_LOGS: &str = "/logs/{tenant}/{group}";
/// A terminal.
pub const EXEC: &str = "/exec/{cluster}/{tenant}/{instance}";
/// Records as a file.
pub const EXPORT: &str = "/export/{file}";

/// What is neither page nor form, and shows something of the fleet.
pub const STREAMS: &[&str] = &[LOGS, GROUP_LOGS, EXEC, EXPORT];

/// Whether a path is one of the patterns.
pub fn known(patterns: &[&str], path: &str) -> bool {
    patterns.iter().any(|pattern| fits(pattern, path))
}

/// Whether a path is of a pattern.
pub fn fits(pattern: &str, path: &str) -> bool {
    let (mut wanted, mut there) = (
        pattern.trim_matches('/').split('/'),
        path.trim_matches('/').split('/'),
    );
    loop {
        match (wanted.next(), there.next()) {
            (None, None) => return true,
            (Some(want), Some(is)) if want == is => {}
            (Some(want), Some(is)) if want.starts_with('{') && !is.is_empty() => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path, want) in [
            ("/", "/", true),
            ("/", "/fleet", false),
            ("/groups/{tenant}/{group}", "/groups/shop/cart", true),
            ("/groups/{tenant}/{group}", "/groups/shop/cart/", true),
            ("/groups/{tenant}/{group}", "/groups/shop", false),
            ("/groups/{tenant}/{group}", "/groups/shop/cart/scale", false),
            ("/groups/{tenant}/{group}", "/groups//cart", false),
        ] {
            assert_eq!(fits(pattern, path), want, "{pattern} {path}");
        }
        assert!(known(PAGES, "/nodes/sh/n1/drain") && !known(PAGES, "/nodes/sh"));
    }
}
