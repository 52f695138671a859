//! Settings that belong to a group and not to its members.

use super::channel::Limit;
use super::connection::{CallError, Connection};
use super::coordinator::{Coordinator, codes};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    DescribeConfigsRequest, DescribeConfigsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;
use std::time::Duration;

const DESCRIBE_CONFIGS: i16 = 32;
const INCREMENTAL_ALTER_CONFIGS: i16 = 44;
/// The resource type of a group (KIP-848).
const GROUP: i8 = 32;
/// Sets a value, whatever was there.
const SET: i8 = 0;

const SESSION_TIMEOUT: &str = "streams.session.timeout.ms";
const HEARTBEAT_INTERVAL: &str = "streams.heartbeat.interval.ms";
const STANDBYS: &str = "streams.num.standby.replicas";

/// What is wanted of a streams group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupSettings {
    pub session_timeout: Duration,
    pub heartbeat_interval: Duration,
    pub standby_replicas: u16,
}

impl GroupSettings {
    /// Sets them, each by itself, and returns the session time-out that holds then. What the broker refuses, since its own limits are other ones,
    /// is told and left.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(crate) fn apply(self, coordinator: &mut Coordinator, group: &str, limit: Limit) -> Result<Duration, CallError> {
        let wanted = [
            // Shorter first: a heartbeat interval above the session's length is refused.
            (HEARTBEAT_INTERVAL, "heartbeat.interval", self.heartbeat_interval.as_millis()),
            (SESSION_TIMEOUT, "session.timeout", self.session_timeout.as_millis()),
            (STANDBYS, "num.standby.replicas", self.standby_replicas.into()),
        ];
        let broker = &mut coordinator.open_any(&limit)?;
        let found = read(broker, group, limit.clone())?;
        let mut session = self.session_timeout;
        for (key, setting, value) in wanted {
            let value = value.to_string();
            let present = found.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
            let mut holds = present.clone();
            if present.as_ref() != Some(&value) {
                match set(broker, group, key, &value, limit.clone())? {
                    None => {
                        tracing::info!(group, key, value, was = present, "the group's setting is changed");
                        holds = Some(value);
                    }
                    Some(why) => tracing::info!(group, key, stays = present, "`{setting}` does not hold for this group: {why}"),
                }
            }
            if let (SESSION_TIMEOUT, Some(millis)) = (key, holds.and_then(|value| value.parse().ok())) {
                session = Duration::from_millis(millis);
            }
        }
        Ok(session)
    }
}

/// The group's settings, the broker's defaults included.
fn read(broker: &mut Connection, group: &str, limit: Limit) -> Result<Vec<(String, String)>, CallError> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(GROUP)
        .with_resource_name(StrBytes::from_string(group.to_owned()))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer: DescribeConfigsResponse = broker.call(DESCRIBE_CONFIGS, 4, &request, limit)?;
    let configs = answer.results.into_iter().flat_map(|result| result.configs);
    Ok(configs.filter_map(|config| Some((config.name.to_string(), config.value?.to_string()))).collect())
}

/// Sets one of them; why not, when it is refused.
fn set(broker: &mut Connection, group: &str, key: &str, value: &str, limit: Limit) -> Result<Option<String>, CallError> {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let config = AlterableConfig::default().with_name(text(key)).with_config_operation(SET).with_value(Some(text(value)));
    let resource = AlterConfigsResource::default().with_resource_type(GROUP).with_resource_name(text(group)).with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let answer: IncrementalAlterConfigsResponse = broker.call(INCREMENTAL_ALTER_CONFIGS, 1, &request, limit)?;
    let refusal = answer.responses.into_iter().find(|response| response.error_code != codes::NONE);
    Ok(refusal.map(|response| {
        let message = response.error_message.map(|text| text.to_string()).unwrap_or_default();
        format!("{message} (error {})", response.error_code)
    }))
}
