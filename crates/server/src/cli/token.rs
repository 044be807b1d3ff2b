//! `manifold token`: a token for a person or a program, signed with the first key of the settings.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use control::CameraId;
use serde_json::json;

use super::{Failure, say};
use crate::config::{self, Environment, Flags};
use crate::http::{Badge, Keyring, Role, Sources};

/// The longest that a token may be good: whoever wants more wants no end, and nobody can end it but by
/// taking the key away.
const TTL_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// Make a token for the API from the first of auth.keys
#[derive(Debug, Args)]
#[command(after_help = "Without --camera, --admin or --role the user may watch every camera.")]
pub(super) struct TokenArgs {
    /// Whom the token is for; reservations carry this name
    #[arg(long, value_name = "NAME")]
    user: String,
    /// The user may reserve and watch this camera
    #[arg(long, value_name = "ID", conflicts_with_all = ["admin", "role", "sources"])]
    camera: Option<String>,
    /// The user may do everything; the same as --role admin
    #[arg(long, conflicts_with_all = ["role", "sources"])]
    admin: bool,
    /// What the user may do with his sources
    #[arg(long, value_name = "viewer|operator|admin")]
    role: Option<String>,
    /// The user's sources, with commas between, or "*" for all
    #[arg(long, value_name = "A,B", requires = "role")]
    sources: Option<String>,
    /// How long the token is good
    #[arg(long, value_name = "TIME", default_value = "1h")]
    ttl: String,
    /// Print JSON: the token, and what it allows
    #[arg(long)]
    json: bool,
    /// Config file, TOML or (by its ending) JSON [default: ./manifold.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Prints the token on standard output.
pub(super) fn run(args: &TokenArgs) -> Result<(), Failure> {
    let flags = Flags { config: args.config.clone(), ..Flags::default() };
    let auth = config::load(&flags, &Environment::of_process())?.config.auth;
    Ok(print(args, &auth)?)
}

fn print(args: &TokenArgs, auth: &config::Auth) -> anyhow::Result<()> {
    ensure!(
        !auth.keys.is_empty(),
        "the settings have no key to sign with; add one under [auth.keys] and let the server read it, too"
    );
    let badge = badge(args)?;
    let ttl = ttl(&args.ttl)?;
    let now = SystemTime::now();
    let pass = Keyring::new(auth)?.sign(badge.claims(now, ttl))?;
    if !args.json {
        say(&pass.token);
        return Ok(());
    }
    let answer = json!({
        "token": pass.token,
        "identity": badge.identity,
        "role": badge.role.as_str(),
        "sources": badge.sources.to_text(),
        "camera_id": badge.camera.as_ref().map(CameraId::as_str),
        "key": auth.keys.first().map(|key| &key.id),
        "expires_at": humantime::format_rfc3339_seconds(pass.permit.until).to_string(),
    });
    say(&answer.to_string());
    Ok(())
}

fn badge(args: &TokenArgs) -> anyhow::Result<Badge> {
    let role = match (&args.role, args.admin) {
        (None, true) => Role::Admin,
        (None, false) => Role::Viewer,
        (Some(word), _) => Role::parse(word)
            .ok_or_else(|| anyhow!("--role must be viewer, operator or admin, not {word:?}"))?,
    };
    let camera = args.camera.as_deref().map(CameraId::parse).transpose().context("--camera")?;
    let written = args.sources.as_deref().map(Sources::parse).transpose();
    let sources = match (written.map_err(|error| anyhow!("--sources: {error}"))?, role) {
        (Some(Sources::Set(_)), Role::Admin) => {
            bail!("an admin has all sources; use --role operator with --sources")
        }
        (Some(sources), Role::Viewer | Role::Operator | Role::Admin) => sources,
        (None, Role::Operator) => bail!("say whose operator it is, with --sources A,B or \"*\""),
        (None, Role::Viewer) if camera.is_some() => Sources::none(),
        (None, Role::Viewer | Role::Admin) => Sources::All,
    };
    Badge::new(args.user.clone(), role, sources, camera).map_err(|error| anyhow!("--user: {error}"))
}

fn ttl(text: &str) -> anyhow::Result<Duration> {
    let ttl = humantime::parse_duration(text.trim());
    let ttl =
        ttl.map_err(|_| anyhow!("--ttl must be a time like \"1h\" or \"30d\", not {text:?}"))?;
    let is_right = (Duration::from_secs(1)..=TTL_MAX).contains(&ttl);
    ensure!(is_right, "--ttl must be from 1 second to 10 years");
    Ok(ttl)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: TokenArgs,
    }

    fn made(line: &str) -> Result<Badge, String> {
        let words = std::iter::once("token").chain(line.split(' '));
        let args = Line::try_parse_from(words).map_err(|error| error.to_string())?.args;
        badge(&args).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_token_is_for_what_the_command_says() {
        let of = |line: &str| {
            let badge = made(line).unwrap();
            let camera = badge.camera.map(|camera| camera.to_string());
            (badge.role, badge.sources.to_text(), camera)
        };
        let cam = Some("cam-1".to_owned());
        assert_eq!(of("--user u"), (Role::Viewer, "*".to_owned(), None));
        assert_eq!(of("--user u --camera cam-1"), (Role::Viewer, String::new(), cam));
        assert_eq!(of("--user u --admin"), (Role::Admin, "*".to_owned(), None));
        let operator = of("--user u --role operator --sources TAXI,METRO");
        assert_eq!(operator, (Role::Operator, "METRO,TAXI".to_owned(), None));
        let viewer = of("--user u --role viewer --sources TAXI");
        assert_eq!(viewer, (Role::Viewer, "TAXI".to_owned(), None));
    }

    #[test]
    fn what_makes_no_sense_is_said_in_a_sentence() {
        for (line, sentence) in [
            ("--user u --role boss", "--role must be viewer, operator or admin, not \"boss\""),
            ("--user u --role operator", "say whose operator it is, with --sources A,B or \"*\""),
            ("--user u --role operator --sources me", "--sources: the source id has 'm' at"),
            ("--user u --role admin --sources TAXI", "an admin has all sources; use --role"),
            ("--user u --camera a/b", "--camera: the camera id has '/' at position 1"),
            ("--user viewer_x", "--user: a user's name does not begin with viewer_"),
        ] {
            let told = made(line).err().unwrap();
            assert!(told.starts_with(sentence), "{line}: {told}");
        }
        assert!(made("--user u --admin --role viewer").is_err());
        assert!(ttl("soon").unwrap_err().to_string().starts_with("--ttl must be a time like"));
        for text in ["0s", "500ms", "11y"] {
            let told = ttl(text).unwrap_err().to_string();
            assert_eq!(told, "--ttl must be from 1 second to 10 years", "{text}");
        }
    }
}
