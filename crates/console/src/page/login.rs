//! Logging in.

use maud::{DOCTYPE, Markup, html};

use super::frame::bare;
use crate::{assets, messages::M, prefs::Prefs};

/// The form, and why the last attempt came to nothing. `provider` is the host of the identity provider,
/// where there is one.
pub fn page(prefs: &Prefs, next: &str, wrong: Option<&str>, provider: Option<&str>) -> Markup {
    let t = |m: M| m.text(prefs.lang);
    let content = html! {
        @if let Some(wrong) = wrong { p.said role="alert" { (wrong) } }
        @if let Some(host) = provider {
            form.stack method="get" action="/login/oidc" {
                input type="hidden" name="next" value=(next);
                button.primary.wide type="submit" { (M::LoginOidc.fill(prefs.lang, &[&host])) }
            }
            p.hint { (t(M::LoginOr)) }
        }
        form.stack method="post" action="/login" autocomplete="off" {
            input type="hidden" name="next" value=(next);
            label for="credential" { (t(M::LoginCredential)) }
            textarea #credential name="credential" rows="6" required autofocus spellcheck="false" autocomplete="off"
                placeholder="eyJhbGciOi…" {}
            p.hint { (t(M::LoginHint)) }
            button.primary type="submit" { (t(M::LogIn)) }
        }
        details {
            summary { (t(M::LoginHow)) }
            p { (t(M::LoginHowToken)) }
            pre { "kubectl create token NAME -n NAMESPACE" }
            p { (t(M::LoginHowKubeconfig)) }
            pre { "kubectl config view --raw --flatten --minify" }
        }
    };
    bare(prefs, M::LogIn, &content)
}

/// The page between the identity provider and where one wanted to go.
pub fn onward(prefs: &Prefs, next: &str) -> Markup {
    html! {
        (DOCTYPE)
        html lang=(prefs.lang.code()) data-theme=(prefs.theme.code()) {
            head {
                meta charset="utf-8";
                meta http-equiv="refresh" content={ "0;url=" (next) };
                title { "Gantry" }
                link rel="stylesheet" href=(assets::STYLE.path);
            }
            body.bare { main { p { a href=(next) { (M::LoginOnward.text(prefs.lang)) } } } }
        }
    }
}
