//! What quotas and cells leave for a release.

use gantry_api::release::Room;
use gantry_hub::thousandths;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use maud::{Markup, html};

use crate::{
    app::Cx,
    messages::M,
    model::limits::Amount,
    page::{quotas, widgets},
};

/// What quotas and cells leave, and what the release asks for beyond that.
pub fn rooms(cx: &Cx, rooms: &[Room]) -> Markup {
    if rooms.is_empty() {
        return html! {};
    }
    let asks = rooms.iter().any(|r| thousandths(&r.more) != Some(0));
    html! {
        h3 { (cx.t(M::RoomTitle)) }
        @if !asks { p.hint { (cx.t(M::RoomNone)) } }
        div.scroll { table {
            thead { tr { th { (cx.t(M::RoomOf)) } th { (cx.t(M::Cluster)) } th { (cx.t(M::Resource)) } th.num { (cx.t(M::QuotaUsed)) } @if asks { th.num { (cx.t(M::RoomMore)) } th {} } } }
            tbody { @for room in rooms { tr {
                th scope="row" { (room.of) }
                td { (room.cluster) }
                td.mono { (room.resource) }
                td.num { (amount(&room.resource, &room.used)) " / " (amount(&room.resource, &room.total)) }
                @if asks {
                    td.num { (amount(&room.resource, &room.more)) }
                    td { @if room.fits { (widgets::badge("good", "●", cx.t(M::RoomFits))) } @else { (widgets::badge("bad", "■", cx.t(M::RoomShort))) } }
                }
            } } }
        } }
    }
}

/// A quantity as quotas are shown; as it is spelt where it is none.
fn amount(resource: &str, quantity: &Quantity) -> String {
    let Some(n) = thousandths(quantity) else {
        return quantity.0.clone();
    };
    let n = if Amount::is_cpu(resource) {
        n
    } else {
        n / 1000
    };
    i64::try_from(n).map_or_else(|_| quantity.0.clone(), |n| quotas::amount(resource, n))
}
