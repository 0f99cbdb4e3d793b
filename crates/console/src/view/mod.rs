//! Questions to the models: what someone sees of the fleet, sorted and paged. Pages and HTTP API ask the
//! same ones. Pure: a state, a sight and parameters in, rows out.

pub mod fleet;
pub mod groups;
pub mod nodes;
pub mod policies;
pub mod pools;
pub mod quotas;
pub mod releases;
pub mod run;
pub mod search;

use serde::Serialize;

/// Rows of a page where nobody says otherwise, and at most.
pub const PER_PAGE: usize = 50;
/// At most.
pub const MOST: usize = 1000;

/// Parameters of a URL or form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params(pub Vec<(String, String)>);

impl Params {
    /// From a query string or a form's body.
    pub fn parse(text: &str) -> Self {
        Self(
            form_urlencoded::parse(text.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    /// A value, trimmed; empty where there is none.
    pub fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(k, _)| k == name);
        found.map_or("", |(_, v)| v.trim())
    }

    /// A value as it is, line ends as on Unix.
    pub fn text(&self, name: &str) -> String {
        let found = self.0.iter().find(|(k, _)| k == name);
        found.map_or(String::new(), |(_, v)| v.replace("\r\n", "\n"))
    }

    /// All values of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(k, _)| k == name)
            .map(|(_, v)| v.as_str())
    }

    /// A number, where it is one.
    pub fn number(&self, name: &str) -> Option<usize> {
        self.get(name).parse().ok()
    }

    /// The same with one value changed (or, empty, taken away), as a query string with its `?`.
    pub fn with(&self, name: &str, value: &str) -> String {
        let kept = self.0.iter().filter(|(k, v)| k != name && !v.is_empty());
        // Another order or filter begins at the first page.
        let kept = kept.filter(|(k, _)| k != "page" || name == "page");
        let mut out = form_urlencoded::Serializer::new(String::new());
        for (k, v) in kept {
            out.append_pair(k, v);
        }
        if !value.is_empty() {
            out.append_pair(name, value);
        }
        let text = out.finish();
        if text.is_empty() {
            text
        } else {
            format!("?{text}")
        }
    }
}

/// One page of rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listing<T> {
    /// The rows.
    pub items: Vec<T>,
    /// How many there are on all pages.
    pub total: usize,
    /// Which page, from 1.
    pub page: usize,
    /// Rows of a page.
    pub per_page: usize,
}

impl<T> Listing<T> {
    /// Cuts the asked page out of what was found, and only then makes rows.
    pub fn cut<S>(found: Vec<S>, params: &Params, row: impl FnMut(S) -> T) -> Self {
        let per_page = params.number("per").unwrap_or(PER_PAGE).clamp(1, MOST);
        let total = found.len();
        let last = total.div_ceil(per_page).max(1);
        let page = params.number("page").unwrap_or(1).clamp(1, last);
        let items = found
            .into_iter()
            .skip((page - 1) * per_page)
            .take(per_page)
            .map(row)
            .collect();
        Self {
            items,
            total,
            page,
            per_page,
        }
    }

    /// How many pages.
    pub fn pages(&self) -> usize {
        self.total.div_ceil(self.per_page.max(1)).max(1)
    }
}

/// A column to sort by and whether downwards, from `sort=name` or `sort=-name`.
pub fn order(params: &Params) -> (&str, bool) {
    let sort = params.get("sort");
    match sort.strip_prefix('-') {
        Some(name) => (name, true),
        None => (sort, false),
    }
}

/// Whether every word of a search is in one of the texts. `words` are in lower case.
pub fn matches(words: &[String], texts: &[&str]) -> bool {
    words.iter().all(|w| texts.iter().any(|t| contains(t, w)))
}

/// The words of a search, in lower case.
pub fn words(search: &str) -> Vec<String> {
    search.split_whitespace().map(str::to_lowercase).collect()
}

fn contains(text: &str, word: &str) -> bool {
    if text.is_ascii() {
        // Names are in lower case mostly: no copy.
        let (text, word) = (text.as_bytes(), word.as_bytes());
        return word.is_empty()
            || text.len() >= word.len()
                && text
                    .windows(word.len())
                    .any(|w| w.eq_ignore_ascii_case(word));
    }
    text.to_lowercase().contains(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_state_is_in_the_url() {
        let params = Params::parse("q=a%20b&page=3&sort=-name&empty=");
        assert_eq!(
            (params.get("q"), params.number("page"), order(&params)),
            ("a b", Some(3), ("name", true))
        );
        assert_eq!(params.with("sort", "age"), "?q=a+b&sort=age");
        assert_eq!(params.with("page", "4"), "?q=a+b&sort=-name&page=4");
        assert_eq!(Params::default().with("q", ""), "");
    }

    #[test]
    fn pages_are_cut_before_rows_are_made() {
        let mut made = 0;
        let page = Listing::cut(
            (0..95).collect(),
            &Params::parse("page=2&per=40"),
            |n: i32| {
                made += 1;
                n
            },
        );
        assert_eq!(
            (
                page.items[0],
                page.items.len(),
                page.total,
                page.pages(),
                made
            ),
            (40, 40, 95, 3, 40)
        );
        let last = Listing::cut((0..5).collect(), &Params::parse("page=99"), |n: i32| n);
        assert_eq!((last.page, last.items.len()), (1, 5));
        assert_eq!(
            Listing::cut(vec![], &Params::parse("per=0"), |n: i32| n).pages(),
            1
        );
    }

    #[test]
    fn searching_takes_all_words_in_any_case() {
        let found = |q: &str| matches(&words(q), &["Cart-Prod", "shop", "购物车"]);
        assert!(found("") && found("cart SHOP") && found("物") && found("PROD"));
        assert!(!found("cart bank"));
    }
}
