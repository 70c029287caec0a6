//! `/v1/tokens`: who may call this API.

use axum::{
    Extension, Json,
    extract::{Path, Request, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use edgeward::{
    EdgeError, TokenName, TopicFilter,
    access::{Caller, Role, Secret, Token, TopicRights},
    blocking,
    limits::TOKEN_SECONDS_MAX,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Api, Refusal, audit, read_body};

/// Largest description of a token, in bytes.
const TOKEN_BODY_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct NamePath {
    /// The token.
    name: String,
}

/// A token that is to be made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenBody {
    /// Its name: letters, digits, `-`, `_` and `.`.
    #[schema(value_type = String)]
    pub(crate) name: TokenName,
    /// `client`, `viewer`, `deployer` or `admin`.
    #[schema(value_type = String)]
    pub(crate) role: Role,
    /// What its holder may do on topics, and nothing else there; what the role allows when it is left out. A client must have it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) topics: Option<TopicsBody>,
    /// For how long it is valid; for ever when it is left out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) expires_in_seconds: Option<u64>,
}

/// Where one publishes, and what one follows.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TopicsBody {
    /// Filters of topics to which it publishes, such as `site/berlin/#`.
    pub(crate) publish: Vec<String>,
    /// Filters of topics that it follows.
    pub(crate) subscribe: Vec<String>,
}

impl TopicsBody {
    fn into_rights(self) -> Result<TopicRights, EdgeError> {
        let filters = |texts: Vec<String>| texts.into_iter().map(TopicFilter::new).collect::<Result<_, _>>();
        Ok(TopicRights { publish: filters(self.publish)?, subscribe: filters(self.subscribe)? })
    }
}

impl From<TopicRights> for TopicsBody {
    fn from(TopicRights { publish, subscribe }: TopicRights) -> Self {
        let texts = |filters: Vec<TopicFilter>| filters.iter().map(ToString::to_string).collect();
        Self { publish: texts(publish), subscribe: texts(subscribe) }
    }
}

impl TokenBody {
    /// The token, made now.
    pub(crate) fn into_token(self, now: Timestamp) -> Result<Token, EdgeError> {
        let Self { name, role, topics, expires_in_seconds } = self;
        let end = |seconds: u64| {
            let duration =
                i64::try_from(seconds).ok().filter(|_| (1..=TOKEN_SECONDS_MAX).contains(&seconds)).map(SignedDuration::from_secs);
            duration.and_then(|duration| now.checked_add(duration).ok()).ok_or_else(|| {
                EdgeError::invalid(format!("token `{name}` cannot be valid for {seconds} s; it can for 1 to {TOKEN_SECONDS_MAX} s"))
            })
        };
        let expires_at = expires_in_seconds.map(end).transpose()?;
        let topics = topics.map(TopicsBody::into_rights).transpose()?;
        Ok(Token { name, role, created_at: now, expires_at, topics })
    }
}

/// A token without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenAnswer {
    #[schema(value_type = String)]
    name: TokenName,
    /// `client`, `viewer`, `deployer` or `admin`.
    #[schema(value_type = String)]
    role: Role,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// From when on it is refused; none: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// What its holder may do on topics; left out: what the role allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    topics: Option<TopicsBody>,
}

impl From<Token> for TokenAnswer {
    fn from(token: Token) -> Self {
        Self {
            name: token.name,
            role: token.role,
            created_at: token.created_at,
            expires_at: token.expires_at,
            topics: token.topics.map(TopicsBody::from),
        }
    }
}

/// Every token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokensAnswer {
    tokens: Vec<TokenAnswer>,
}

impl From<Vec<Token>> for TokensAnswer {
    fn from(tokens: Vec<Token>) -> Self {
        Self { tokens: tokens.into_iter().map(TokenAnswer::from).collect() }
    }
}

/// A new token with its secret, which is told this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedAnswer {
    /// The secret, for the header `Authorization: Bearer`.
    token: String,
    #[serde(flatten)]
    about: TokenAnswer,
}

impl CreatedAnswer {
    pub(crate) fn new(secret: &Secret, about: Token) -> Self {
        Self { token: secret.reveal().to_owned(), about: about.into() }
    }
}

/// Every token, by name.
#[utoipa::path(get, path = "/v1/tokens", operation_id = "list_tokens", tag = "tokens", responses((status = 200, body = TokensAnswer)))]
pub(crate) async fn list(State(api): State<Api>) -> Json<TokensAnswer> {
    Json(api.tokens.list().into())
}

/// Makes a token. Its secret is in the answer, and nowhere else.
#[utoipa::path(
    post, path = "/v1/tokens", operation_id = "create_token", tag = "tokens", request_body = TokenBody,
    responses(
        (status = 201, body = CreatedAnswer),
        (status = 400, body = super::wire::Problem),
        (status = 412, description = "There is one of this name.", body = super::wire::Problem),
        (status = 413, description = "There are as many as may be.", body = super::wire::Problem),
    )
)]
pub(crate) async fn create(
    State(api): State<Api>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<impl IntoResponse, Refusal> {
    let body = read_body(request, TOKEN_BODY_BYTES_MAX).await?;
    let body: TokenBody = serde_json::from_slice(&body.bytes)
        .map_err(|error| EdgeError::invalid(format!("the description of the token is not valid: {error}")))?;
    let token = body.into_token(Timestamp::now())?;
    let (tokens, wanted) = (std::sync::Arc::clone(&api.tokens), token.clone());
    let secret = blocking(move || tokens.create(&wanted)).await?;
    audit::token_changed("created", &token.name, Some(token.role.as_str()), caller.as_deref());
    Ok((StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(CreatedAnswer::new(&secret, token))))
}

/// Revokes a token: who shows it is refused from now on, and what is being answered to them without an end breaks off.
#[utoipa::path(
    delete, path = "/v1/tokens/{name}", operation_id = "revoke_token", tag = "tokens", params(NamePath),
    responses((status = 204), (status = 404, body = super::wire::Problem))
)]
pub(crate) async fn revoke(
    State(api): State<Api>,
    caller: Option<Extension<Caller>>,
    Path(NamePath { name }): Path<NamePath>,
) -> Result<StatusCode, Refusal> {
    let name = TokenName::new(name)?;
    let (tokens, wanted) = (std::sync::Arc::clone(&api.tokens), name.clone());
    blocking(move || tokens.revoke(&wanted)).await?;
    audit::token_changed("revoked", &name, None, caller.as_deref());
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_valid_for_a_time_that_can_be_counted() {
        let now = Timestamp::UNIX_EPOCH;
        let token = |expires_in_seconds| {
            let name = TokenName::new("ops").expect("valid");
            TokenBody { name, role: Role::Admin, topics: None, expires_in_seconds }.into_token(now).map(|token| token.expires_at)
        };
        assert_eq!(token(None).expect("for ever"), None);
        assert_eq!(token(Some(60)).expect("valid"), Some(Timestamp::constant(60, 0)));
        token(Some(TOKEN_SECONDS_MAX)).expect("valid");
        for bad in [0, TOKEN_SECONDS_MAX + 1, u64::MAX] {
            assert!(token(Some(bad)).expect_err("refused").to_string().contains(&format!("{bad} s")), "{bad}");
        }
    }
}
