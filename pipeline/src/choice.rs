//! Which events of a log somebody means: what commands that look into recorded traffic have in common.

use serde::{Deserialize, Serialize};
use tidegate_schemas::block::{Condition, Operator};
use tidegate_schemas::ids::{SourceId, TenantId};
use tidegate_schemas::time::{self, Micros};

/// Which events are meant; what is not said is any.
#[derive(Clone, Debug, Default, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct Choice {
    /// Of this tenant.
    #[arg(long, value_parser = TenantId::new)]
    pub tenant: Option<TenantId>,
    /// Of this source.
    #[arg(long, value_parser = SourceId::new)]
    pub source: Option<SourceId>,
    /// Of this asset, as events carry its id; may be given several times.
    #[arg(long = "asset", value_name = "ASSET")]
    pub assets: Vec<String>,
    /// Received then or later: RFC 3339, like 2026-01-02T03:04:05Z.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<Micros>,
    /// Received before then.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<Micros>,
}

/// The same of refused events.
#[derive(Clone, Debug, Default, Serialize, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub struct RefusedChoice {
    /// Whose, and when.
    #[command(flatten)]
    pub of: Choice,
    /// Refused by this template, in any version.
    #[arg(long)]
    pub template: Option<String>,
    /// Refused for this reason, as `rejections` has it in `code`; may be given several times.
    #[arg(long = "code", value_name = "CODE")]
    pub codes: Vec<String>,
}

fn moment(text: &str) -> Result<Micros, String> {
    time::parse(text).ok_or_else(|| "it is no RFC 3339 time, like 2026-01-02T03:04:05Z".to_owned())
}

/// What is known of an event before anything is decided about it.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Whose.
    pub tenant: &'a str,
    /// Where it came in.
    pub source: &'a str,
    /// The asset; empty where none was found.
    pub asset: &'a str,
    /// When it came.
    pub received_at: Micros,
}

impl Choice {
    /// Whether an event is meant.
    pub fn takes(&self, event: Known<'_>) -> bool {
        self.tenant.as_ref().is_none_or(|t| t.as_str() == event.tenant)
            && self.source.as_ref().is_none_or(|s| s.as_str() == event.source)
            && self.takes_asset(event.asset)
            && self.since.is_none_or(|at| event.received_at >= at)
            && self.until.is_none_or(|at| event.received_at < at)
    }

    /// Whether events of an asset are meant.
    pub fn takes_asset(&self, asset: &str) -> bool {
        self.assets.is_empty() || self.assets.iter().any(|a| a == asset)
    }

    /// The same as conditions on rows.
    pub fn conditions(&self) -> Vec<Condition> {
        let is = |field, operator, value: Option<String>| value.map(|value| Condition::any(field, operator, [value]));
        let assets = (!self.assets.is_empty()).then(|| Condition::any("asset", Operator::Equal, &self.assets));
        let all = [
            is("tenant", Operator::Equal, self.tenant.as_ref().map(ToString::to_string)),
            is("source", Operator::Equal, self.source.as_ref().map(ToString::to_string)),
            assets,
            is("received_at", Operator::GreaterOrEqual, self.since.map(time::format)),
            is("received_at", Operator::Less, self.until.map(time::format)),
        ];
        all.into_iter().flatten().collect()
    }
}

impl RefusedChoice {
    /// Whether a rejection is meant; `template` is a label, `id@version`.
    pub fn takes(&self, event: Known<'_>, template: &str, code: &str) -> bool {
        let id = template.split('@').next().unwrap_or_default();
        self.of.takes(event)
            && self.template.as_ref().is_none_or(|t| t == id)
            && (self.codes.is_empty() || self.codes.iter().any(|c| c == code))
    }
}
