//! Queries of requests to kubelets.

use std::borrow::Cow;

/// Names and values in their order.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Any text is a query.
    pub fn parse(text: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(text.unwrap_or_default().as_bytes());
        Self(
            pairs
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    /// All values of a name.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(it, _)| it == name)
            .map(|(_, value)| value.clone())
            .collect()
    }

    /// The first value of a name, if it is not empty.
    pub fn first(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(it, _)| it == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|it| !it.is_empty())
    }

    /// Whether it is set to something true.
    pub fn flag(&self, name: &str) -> bool {
        matches!(
            self.first(name),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True")
        )
    }
}

/// A part of a path without its escapes.
pub fn unescaped(part: &str) -> Cow<'_, str> {
    if !part.contains('%') {
        return part.into();
    }
    // A plus stands for itself in a path.
    let text = part.replace('+', "%2B");
    form_urlencoded::parse(text.as_bytes())
        .map(|(name, _)| name.into_owned())
        .next()
        .unwrap_or_default()
        .into()
}
