//! Which backend computes on a device.

use candle_core::{Device, Tensor};

use super::backend::Backend;
use super::cpu::Cpu;
use crate::error::{Error, Result};
use crate::parameter::Parameter;

/// The backend of the device that `tensor` is on.
pub(super) fn of(tensor: &Tensor) -> Result<&'static dyn Backend> {
    backend(tensor.device())
}

/// The backend of the device that a parameter is on; stored values are in main memory.
pub(super) fn of_parameter(parameter: &Parameter) -> Result<&'static dyn Backend> {
    match parameter {
        Parameter::Tensor(tensor) => of(tensor),
        Parameter::Stored(_) => Ok(&Cpu),
    }
}

/// Whether this build can compute on `device`.
///
/// # Errors
/// [`Error::Device`] naming the device when it cannot.
pub fn check_device(device: &Device) -> Result<()> {
    backend(device).map(|_| ())
}

fn backend(device: &Device) -> Result<&'static dyn Backend> {
    match device {
        Device::Cpu => Ok(&Cpu),
        other => Err(Error::Device { device: format!("{:?}", other.location()) }),
    }
}
