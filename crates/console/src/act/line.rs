//! Stopping the line, and letting releases go on.

use gantry_api::{StopLine, StopLineSpec};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};

use crate::{app::Cx, error::Fail, messages::M, view::Params};

/// Throws the switch.
///
/// # Errors
/// If it is not said what is to stop, or the hub refuses it.
pub async fn stop(cx: &Cx, form: &Params) -> Result<(), Fail> {
    let list = |name: &str| -> Vec<String> {
        form.get(name)
            .split([' ', ','])
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let spec = StopLineSpec {
        tenants: list("tenants"),
        cells: list("cells"),
        clusters: list("clusters"),
        reason: form.get("reason").to_owned(),
        by: cx.session.name().to_owned(),
        ..StopLineSpec::default()
    };
    let named = !(spec.tenants.is_empty() && spec.cells.is_empty() && spec.clusters.is_empty());
    if !named && form.get("fleet").is_empty() {
        return Err(Fail::Bad(cx.t(M::LineScopeMissing).to_owned()));
    }
    let api: Api<StopLine> = Api::all(cx.session.client.clone());
    let name = form.get("name");
    let end = api
        .create(&PostParams::default(), &StopLine::new(name, spec))
        .await
        .map(|_| ())
        .map_err(Fail::from);
    cx.audit("stop the line", name, &end);
    end
}

/// Takes it back.
///
/// # Errors
/// If the hub refuses it.
pub async fn go(cx: &Cx, name: &str) -> Result<(), Fail> {
    if !cx.sight.lines {
        return Err(Fail::NotFound);
    }
    let api: Api<StopLine> = Api::all(cx.session.client.clone());
    let end = api
        .delete(name, &DeleteParams::default())
        .await
        .map(|_| ())
        .map_err(Fail::from);
    cx.audit("let the line go", name, &end);
    end
}
