//! What the environment says about sources: endpoint, token, pip, patience.

use crate::source::without_secrets;
use std::fmt;
use std::time::Duration;

/// How sources are reached. The token and passwords are never shown, not even by `Debug`.
#[derive(Clone)]
pub struct Settings {
    /// Where `org/repo` names live; `HF_ENDPOINT`, default `https://huggingface.co`.
    pub hf_endpoint: String,
    /// `HF_TOKEN`, sent to the endpoint's own host only.
    pub hf_token: Option<String>,
    /// The command that runs pip, with its arguments; `TESSERA_PIP`, default `python3 -m pip`.
    pub pip: Vec<String>,
    /// How long to wait for a name or a connection before saying that a host cannot be reached.
    pub connect_timeout: Duration,
    /// How long a silent connection is waited for.
    pub read_timeout: Duration,
    /// How often a request is repeated that brought nothing new.
    pub retries: u32,
    /// Pause before the first repetition; doubled each time.
    pub backoff: Duration,
}

impl Settings {
    /// From the process's environment.
    pub fn from_env() -> Settings {
        let var = |name| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
        let mut settings = Settings::default();
        if let Some(endpoint) = var("HF_ENDPOINT") {
            settings.hf_endpoint = endpoint.trim().trim_end_matches('/').to_string();
        }
        settings.hf_token = var("HF_TOKEN").map(|t| t.trim().to_string());
        if let Some(pip) = var("TESSERA_PIP") {
            settings.pip = pip.split_whitespace().map(str::to_string).collect();
        }
        settings
    }
}

impl Settings {
    /// The pip command in one line, without passwords in it.
    pub fn pip_shown(&self) -> String {
        self.pip.iter().map(|word| without_secrets(word)).collect::<Vec<_>>().join(" ")
    }
}

impl Default for Settings {
    fn default() -> Settings {
        let python = if cfg!(windows) { "python" } else { "python3" };
        Settings {
            hf_endpoint: "https://huggingface.co".into(),
            hf_token: None,
            pip: vec![python.into(), "-m".into(), "pip".into()],
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(30),
            retries: 4,
            backoff: Duration::from_millis(500),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("hf_endpoint", &without_secrets(&self.hf_endpoint))
            .field("hf_token", &self.hf_token.as_ref().map(|_| "(hidden)"))
            .field("pip", &self.pip_shown())
            .finish_non_exhaustive()
    }
}
