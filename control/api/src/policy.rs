//! What the API says of rules, groups, meters, mirrors, flows and traces: the JSON types.

use fabnic_model::{Group, Mac, Mirror, Rule, rule::Match};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A rule that runs, with what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RuleStatus {
    /// Its name among all domains: `TENANT/NAME` of a tenant's.
    pub id: String,
    /// The rule.
    #[serde(flatten)]
    pub rule: Rule,
    /// The rule as words of the command line.
    pub text: String,
    /// Frames that it decided on.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Seconds since it last decided on one. Absent: it never has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_seconds: Option<u64>,
}

/// A mirror that runs, with what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MirrorStatus {
    /// Its name among all domains: `TENANT/NAME` of a tenant's.
    pub id: String,
    /// The mirror.
    #[serde(flatten)]
    pub mirror: Mirror,
    /// Frames that it was shown.
    pub seen: u64,
    /// Copies that it sent, whether there was room for them or not.
    pub copied: u64,
}

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Passed {
    /// Frames.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupStatus {
    /// Its name among all domains: `TENANT/NAME` of a tenant's.
    pub id: String,
    /// The group.
    #[serde(flatten)]
    pub group: Group,
}

/// A tenant, with what it has of its quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TenantStatus {
    /// Name.
    pub name: String,
    /// Its own socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// Users who are the tenant there.
    pub uids: Vec<u32>,
    /// Whether it has a token.
    pub has_token: bool,
    /// What it has at most.
    pub quota: fabnic_model::tenant::Quota,
    /// What it has.
    pub used: fabnic_model::tenant::Quota,
    /// What its ports were refused because it has as much as it may have.
    #[serde(default)]
    pub refused: Refused,
    /// Its ports.
    pub ports: Vec<String>,
}

/// What a tenant's ports were refused since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refused {
    /// Connections; their packets were dropped as `ct_tenant_limit`.
    pub connections: u64,
    /// Addresses that were not learned; frames to them are flooded.
    pub fdb_entries: u64,
}

/// Changes of a security group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Members {
    /// Addresses and prefixes that come.
    pub add: Vec<fabnic_model::rule::value::Prefix>,
    /// Addresses and prefixes that go.
    pub del: Vec<fabnic_model::rule::value::Prefix>,
}

/// One change of several that are made as one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "lowercase", tag = "op")]
pub enum RuleEdit {
    /// A rule comes.
    Add {
        /// The rule.
        #[schema(value_type = Rule)]
        rule: serde_json::Value,
    },
    /// Keys of a rule change.
    Set {
        /// Its name.
        name: String,
        /// A JSON merge patch (RFC 7396).
        patch: serde_json::Value,
    },
    /// A rule goes.
    Del {
        /// Its name.
        name: String,
    },
}

/// A frame that is to be traced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TraceRequest {
    /// Port from which it would come.
    pub port: String,
    /// The frame by its fields, in the words of a rule's match, each with one value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packet: Option<Match>,
    /// The frame as hexadecimal digits, from its destination address on; instead of `packet`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hex: Option<String>,
}

/// What would become of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceReport {
    /// The frame, for people.
    pub frame: String,
    /// What the stages did, in order, up to the one that decided.
    pub steps: Vec<TraceStep>,
    /// The VLAN that it is in, where that is known.
    pub vlan: u16,
    /// What would be done with it, in order.
    pub operations: Vec<String>,
    /// Why it would be dropped, if it would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<DropExplained>,
    /// Where it would go.
    pub to: Vec<TraceTarget>,
}

/// What one stage did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceStep {
    /// The stage.
    pub stage: String,
    /// What it found.
    pub notes: Vec<String>,
    /// What it decided, if the walk ended here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// Stages whose notes name what is not a tenant's: infrastructure's rules, other tenants' rules and zones, ports that stations
/// are behind.
const NOT_A_TENANTS: [&str; 8] =
    ["infra_in", "multicast", "forward", "storm", "track_out", "tenant_out", "infra_out", "admit"];

impl TraceStep {
    /// Leaves what a tenant may know: that the stage was there, and what it decided.
    pub(crate) fn hide_from_tenant(&mut self) {
        if NOT_A_TENANTS.contains(&self.stage.as_str()) {
            self.notes.clear();
        }
    }
}

impl TraceReport {
    /// Leaves what a tenant may know, but for where the frame goes. Operations name rules and mirrors of whomever.
    pub(crate) fn hide_from_tenant(&mut self) {
        self.steps.iter_mut().for_each(TraceStep::hide_from_tenant);
        self.operations.clear();
    }
}

/// A reason to drop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DropExplained {
    /// The reason, as counters call it.
    pub reason: String,
    /// One sentence about it.
    pub explanation: String,
}

/// A port to which a traced frame would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TraceTarget {
    /// The port.
    pub port: String,
    /// Why it would not leave there, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<DropExplained>,
}

/// A frame that was dropped lately.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecentDrop {
    /// A number that grows with each that is kept.
    pub number: u64,
    /// Seconds since then.
    pub seconds_ago: u64,
    /// `rx`: it came from the port and went no further. `tx`: it could not be delivered to the port.
    pub direction: crate::CaptureDirection,
    /// Why.
    pub dropped: DropExplained,
    /// The frame, for people.
    pub frame: String,
    /// Its length in bytes.
    pub length: u32,
    /// Its first bytes as hexadecimal digits: what `fabnic trace` takes.
    pub hex: String,
    /// The stage that would drop it now, with what it found. Absent when it would pass now, or was on its way out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<TraceStep>,
}

/// Whose recent drops are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WhyFilter {
    /// Name of the port.
    pub port: String,
}

/// Which flows are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FlowFilter {
    /// Only from this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Most flows in the answer; 64 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// A flow that is alive, with what went through it since it was last decided on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowStatus {
    /// Port that it comes from.
    pub port: String,
    /// Source address.
    pub src_mac: Mac,
    /// Destination address.
    pub dst_mac: Mac,
    /// VLAN.
    pub vlan: u16,
    /// EtherType, as rules write it.
    pub protocol: String,
    /// IP source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_ip: Option<String>,
    /// IP destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_ip: Option<String>,
    /// What IP carries, as rules write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip_proto: Option<String>,
    /// Source port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub src_port: Option<u16>,
    /// Destination port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst_port: Option<u16>,
    /// Where it goes: a port's name, `flood`, or `drop` and the reason.
    pub to: String,
    /// Frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// An address that is bound to a port: what guards let pass and what is answered for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BindingStatus {
    /// VLAN.
    pub vlan: u16,
    /// The address.
    pub address: String,
    /// Port that has it.
    pub port: String,
    /// With which MAC address.
    pub mac: Mac,
    /// How it came: `static`, `dhcp`, `dhcp6` or `slaac`.
    pub origin: String,
    /// Seconds until it ends. Absent: it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<u64>,
}

/// Which bindings are meant. All keys together; without any, all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BindingFilter {
    /// Only of this port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// Only in this VLAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u16>, minimum = 1, maximum = 4094)]
    pub vlan: Option<fabnic_model::Vid>,
    /// Only of this address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    pub address: Option<std::net::IpAddr>,
}

/// A neighbour that announced itself by LLDP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LldpStatus {
    /// Port on whose link it is.
    pub port: String,
    /// Its chassis.
    pub chassis: String,
    /// Its port.
    pub port_id: String,
    /// Description of its port.
    pub port_description: String,
    /// Its name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// Seconds until this ends.
    pub expires_seconds: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_told_of_its_own_stages_only() {
        let step = |stage: &str| TraceStep {
            stage: stage.into(),
            notes: vec!["rule x of infrastructure matches".into()],
            outcome: Some("dropped: rule_infrastructure".into()),
        };
        let mut report = TraceReport {
            frame: String::new(),
            steps: vec![step("tenant_in"), step("infra_in"), step("forward")],
            vlan: 1,
            operations: vec!["count to rule x of infrastructure".into()],
            dropped: None,
            to: Vec::new(),
        };
        report.hide_from_tenant();
        let notes: Vec<_> = report.steps.iter().map(|step| step.notes.len()).collect();
        assert_eq!(notes, [1, 0, 0]);
        assert!(report.steps.iter().all(|step| step.outcome.is_some()), "what was decided stays");
        assert!(report.operations.is_empty());
    }
}
