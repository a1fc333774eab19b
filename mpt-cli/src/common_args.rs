//! Flags common to all commands. A flag takes precedence over its `MPT_*` variable.

use std::str::FromStr;

use candle_core::Device;

use crate::exit::CliError;

/// Largest seed: run files hold signed 64-bit integers.
const LARGEST_SEED: u64 = i64::MAX as u64;

/// Flags common to all commands.
#[derive(Debug, Clone, clap::Args)]
#[command(
    next_help_heading = "Common options (also read from MPT_DEVICE, MPT_THREADS, MPT_SEED, MPT_LOG_FORMAT)"
)]
pub(crate) struct CommonArgs {
    /// Where to compute: `cpu` or `cuda[:N]`
    #[arg(
        long,
        global = true,
        value_name = "DEVICE",
        env = "MPT_DEVICE",
        hide_env = true,
        default_value = "cpu"
    )]
    pub(crate) device: DeviceChoice,
    /// Number of threads [default: one per core]; results do not depend on it
    #[arg(long, global = true, value_name = "N", env = "MPT_THREADS", hide_env = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: Option<u16>,
    /// Seed of everything random
    #[arg(long, global = true, value_name = "N", env = "MPT_SEED", hide_env = true, value_parser = clap::value_parser!(u64).range(..=LARGEST_SEED))]
    pub(crate) seed: Option<u64>,
    /// Print one JSON document (JSON Lines where the command says so) on stdout, and nothing else there
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Form of the messages on stderr
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        env = "MPT_LOG_FORMAT",
        hide_env = true,
        default_value = "text"
    )]
    pub(crate) log_format: LogFormat,
    /// Say more on stderr; `-vv` says everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say nothing on stderr but errors, and draw no progress bars
    #[arg(long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

/// Format of messages on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    // Plain comments, so that the help stays short: lines for people, one JSON object per line.
    Text,
    Json,
}

/// Device, as given on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceChoice {
    /// CPU.
    Cpu,
    /// NVIDIA GPU with its ordinal.
    Cuda(usize),
}

impl DeviceChoice {
    /// Opens the device.
    ///
    /// # Errors
    /// Exit status 4 if this build does not support the device.
    pub(crate) fn open(self) -> Result<Device, CliError> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Cuda(ordinal) => {
                Err(CliError::system(format!("device `cuda:{ordinal}` is not supported by this build"))
                    .help("leave `--device` out and MPT_DEVICE unset, or say `--device cpu`"))
            }
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ordinal = match text {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => Some(0),
            _ => text.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
        };
        ordinal.map(Self::Cuda).ok_or_else(|| "expected `cpu`, `cuda` or `cuda:N`".to_owned())
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_and_shown() {
        for text in ["cpu", "cuda:0", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().map(|device| device.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:-1", "cpu:0"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_device_this_build_lacks_is_refused_by_name() {
        let error = DeviceChoice::Cuda(1).open().expect_err("this build has no CUDA");
        assert!(error.to_string().contains("cuda:1"), "{error}");
    }
}
