//! What an adapter's driver tells of its memory.

/// Memory of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes that there are.
    pub total: u64,
    /// Bytes of them that this process may still take; all of them where the driver does not tell.
    pub free: u64,
}

/// That of an adapter; `None` where the driver does not tell: in a browser, and under Metal and DX12, which wgpu does not
/// ask.
#[cfg(not(any(target_arch = "wasm32", target_vendor = "apple")))]
pub fn memory(adapter: &wgpu::Adapter) -> Option<Memory> {
    use ash::vk;
    // SAFETY: what is borrowed is neither kept nor destroyed.
    let hal = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let (instance, device) = (hal.shared_instance().raw_instance(), hal.raw_physical_device());
    if hal.shared_instance().instance_api_version() < vk::API_VERSION_1_1 {
        return None;
    }
    // SAFETY: both handles live as long as `hal`.
    let extensions = unsafe { instance.enumerate_device_extension_properties(device) }.ok()?;
    let name = Ok(ash::ext::memory_budget::NAME);
    let tells = extensions.iter().any(|extension| extension.extension_name_as_c_str() == name);
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut asked = vk::PhysicalDeviceMemoryProperties2::default();
    if tells {
        asked = asked.push_next(&mut budget);
    }
    // SAFETY: as above; the function is of version 1.1, and what is chained of an extension that the device has.
    unsafe { instance.get_physical_device_memory_properties2(device, &mut asked) };
    let heaps = asked.memory_properties;
    let local = |i: &usize| heaps.memory_heaps[*i].flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL);
    let count = (heaps.memory_heap_count as usize).min(heaps.memory_heaps.len());
    // Others are windows for the CPU.
    let i = (0..count).filter(local).max_by_key(|i| heaps.memory_heaps[*i].size)?;
    let total = heaps.memory_heaps[i].size;
    let free = if tells { budget.heap_budget[i].saturating_sub(budget.heap_usage[i]) } else { total };
    Some(Memory { total, free: free.min(total) })
}

/// See the other one.
#[cfg(any(target_arch = "wasm32", target_vendor = "apple"))]
pub fn memory(_: &wgpu::Adapter) -> Option<Memory> {
    None
}
