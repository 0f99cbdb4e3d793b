//! How an extension API server is told who asks.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::authn::UserInfo;

pub const USER: &str = "X-Remote-User";
pub const UID: &str = "X-Remote-Uid";
pub const GROUP: &str = "X-Remote-Group";
pub const EXTRA: &str = "X-Remote-Extra-";

/// Headers that name the user.
///
/// # Errors
/// What cannot stand in a header.
pub fn naming(user: &UserInfo) -> Result<HeaderMap, http::Error> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &str| -> Result<(), http::Error> {
        let name = HeaderName::from_bytes(name.as_bytes())?;
        headers.append(name, HeaderValue::from_bytes(value.as_bytes())?);
        Ok(())
    };
    add(USER, &user.name)?;
    if !user.uid.is_empty() {
        add(UID, &user.uid)?;
    }
    for group in &user.groups {
        add(GROUP, group)?;
    }
    for (key, values) in &user.extra {
        let name = format!("{EXTRA}{}", escaped(key));
        for value in values {
            add(&name, value)?;
        }
    }
    Ok(headers)
}

/// A key as the name of a header carries it: what may not stand there, and the sign of escapes
/// itself, as in a URL.
fn escaped(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_with_uid_groups_and_extra() {
        let mut user = UserInfo::new("ann", &["a", "b"]);
        user.extra
            .insert("example.com/x y".into(), vec!["1".into(), "2".into()]);
        let headers = naming(&user).expect("fit for headers");
        assert_eq!(headers["x-remote-user"], "ann");
        assert!(!headers.contains_key("x-remote-uid"));
        assert_eq!(headers.get_all("x-remote-group").iter().count(), 2);
        let extra = headers.get_all("x-remote-extra-example.com%2fx%20y");
        assert_eq!(extra.iter().count(), 2);
        user.uid = "u".into();
        assert_eq!(naming(&user).expect("fit")["x-remote-uid"], "u");
        user.name = "new\nline".into();
        assert!(naming(&user).is_err());
    }
}
