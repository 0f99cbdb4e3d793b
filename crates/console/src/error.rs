//! What goes wrong, as a user meets it.

use http::StatusCode;

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fail {
    /// There is no such thing, or none that the user may see: the same answer.
    NotFound,
    /// Nobody is logged in (any more).
    Login,
    /// The API server refuses it to this user; its words.
    Forbidden(String),
    /// The request cannot be meant so; what to mend.
    Bad(String),
    /// It clashes with what is there now.
    Conflict(String),
    /// Too many attempts.
    TooMany,
    /// The hub or a member does not answer; what it said.
    Upstream(String),
}

impl Fail {
    /// The status code.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Login => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Bad(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Upstream(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// What the API says of it.
    pub fn detail(&self) -> &str {
        match self {
            Self::NotFound => "there is no such object, or none that you may see",
            Self::Login => "log in first: a session cookie or `Authorization: Bearer TOKEN`",
            Self::TooMany => "too many attempts; wait a minute",
            Self::Forbidden(why) | Self::Bad(why) | Self::Conflict(why) | Self::Upstream(why) => {
                why
            }
        }
    }
}

impl From<kube::Error> for Fail {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => match status.code {
                401 => Self::Login,
                403 => Self::Forbidden(status.message.clone()),
                404 => Self::NotFound,
                409 => Self::Conflict(status.message.clone()),
                400 | 422 => Self::Bad(status.message.clone()),
                429 => Self::Upstream(status.message.clone()),
                _ => Self::Upstream(status.message.clone()),
            },
            other => Self::Upstream(root(&other)),
        }
    }
}

/// The innermost cause: of a failed connection it is what the operating system said.
pub fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
