//! An adapter and its device: buffers, uploads, pipelines, and what went wrong.

use crate::error::GpuError;
use crate::memory::{Memory, memory};
use crate::profile::Profile;
use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

/// Bytes written before they are waited for: what the driver keeps beside the buffers while it copies.
const PIECE: usize = 8 << 20;

/// An adapter that could be opened.
#[derive(Clone, Debug)]
pub struct Adapter {
    inner: wgpu::Adapter,
}

/// What there is to know of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The adapter's name.
    pub name: String,
    /// Vulkan, Metal, Dx12 or BrowserWebGpu.
    pub api: String,
    /// Discrete, integrated, virtual, or a program on the CPU.
    pub kind: &'static str,
    /// Driver and its version.
    pub driver: String,
    /// Whether it computes on the CPU.
    pub software: bool,
    /// Bytes that one binding may have.
    pub binding: u64,
    /// Bytes that one buffer may have.
    pub buffer: u64,
    /// Its memory, where the driver tells.
    pub memory: Option<Memory>,
}

impl Description {
    /// Whether its memory is the system's.
    pub fn shares_memory(&self) -> bool {
        self.software || self.kind == "integrated"
    }
}

impl Adapter {
    /// All that there are, hardware first.
    pub async fn all() -> Vec<Adapter> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let mut all: Vec<Adapter> = instance
            .enumerate_adapters(wgpu::Backends::all())
            .await
            .into_iter()
            .map(|inner| Adapter { inner })
            .collect();
        let rank = |a: &Adapter| match a.inner.get_info().device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        };
        all.sort_by_key(rank);
        all
    }

    /// The one that a page is given, where it is given any.
    pub async fn given() -> Option<Adapter> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
        let power_preference = wgpu::PowerPreference::HighPerformance;
        let options = wgpu::RequestAdapterOptions { power_preference, ..Default::default() };
        instance.request_adapter(&options).await.ok().map(|inner| Adapter { inner })
    }

    /// What it is.
    pub fn describe(&self) -> Description {
        let (info, limits) = (self.inner.get_info(), self.inner.limits());
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        };
        Description {
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            api: info.backend.to_string(),
            software: info.device_type == wgpu::DeviceType::Cpu,
            name: info.name,
            kind,
            binding: limits.max_storage_buffer_binding_size,
            buffer: limits.max_buffer_size,
            memory: memory(&self.inner),
        }
    }

    /// Opens it; with `low` limits no more is asked of it than every WebGPU has.
    pub async fn open(&self, low: bool) -> Result<Gpu, GpuError> {
        let has = self.inner.limits();
        let mut limits = wgpu::Limits::default();
        if !low {
            limits.max_buffer_size = has.max_buffer_size;
            limits.max_storage_buffer_binding_size = has.max_storage_buffer_binding_size;
        }
        let asked = wgpu::DeviceDescriptor {
            label: Some("tessera"),
            // Only to be told where time goes.
            required_features: self.inner.features() & wgpu::Features::TIMESTAMP_QUERY,
            required_limits: limits.clone(),
            ..wgpu::DeviceDescriptor::default()
        };
        let name = self.describe().name;
        let opened = self.inner.request_device(&asked).await;
        let (device, queue) =
            opened.map_err(|e| GpuError::Open { name: name.clone(), what: e.to_string() })?;
        let state = Arc::new(Mutex::new(Trouble::default()));
        let lost = state.clone();
        device.set_device_lost_callback(move |reason, what| {
            if let Ok(mut state) = lost.lock() {
                state.lost.get_or_insert(format!("{reason:?}: {what}"));
            }
        });
        let fault = state.clone();
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| {
            if let Ok(mut state) = fault.lock() {
                state.fault.get_or_insert(e.to_string());
            }
        }));
        Ok(Gpu {
            device,
            queue,
            limits,
            description: self.describe(),
            trouble: state,
            written: Arc::default(),
            pipelines: Arc::default(),
            poisoned: false,
            edit: None,
            asked: None,
            profile: Arc::default(),
        })
    }
}

/// What went wrong.
#[derive(Debug, Default)]
struct Trouble {
    /// Why the device is gone.
    lost: Option<String>,
    /// The first error that nobody asked for.
    fault: Option<String>,
}

/// An open device. A clone is the same device: programs share it and its pipelines.
#[derive(Clone)]
pub struct Gpu {
    /// wgpu's.
    pub device: wgpu::Device,
    /// Its queue.
    pub queue: wgpu::Queue,
    limits: wgpu::Limits,
    description: Description,
    trouble: Arc<Mutex<Trouble>>,
    /// Bytes written since the last wait.
    written: Arc<AtomicUsize>,
    pipelines: Arc<Mutex<HashMap<String, wgpu::ComputePipeline>>>,
    poisoned: bool,
    edit: Option<Edit>,
    /// Texts that were asked for, where somebody wants to know.
    asked: Option<Arc<Mutex<HashSet<String>>>>,
    /// Where steps are timed: what came of it.
    profile: Arc<Mutex<Option<Profile>>>,
}

/// What a test makes of the text of a kernel.
type Edit = Arc<dyn Fn(&str) -> String + Send + Sync>;

impl Gpu {
    /// The same device, whose new buffers hold NaN: what a kernel does not write, and what it reads too early, is seen.
    pub fn poisoned(&self) -> Gpu {
        Gpu { poisoned: true, ..self.clone() }
    }

    /// The same device with pipelines of its own, of texts that were edited: kernels that are wrong, for tests.
    #[doc(hidden)]
    pub fn edited(&self, edit: impl Fn(&str) -> String + Send + Sync + 'static) -> Gpu {
        Gpu { edit: Some(Arc::new(edit)), pipelines: Arc::default(), ..self.clone() }
    }

    /// The same device with smaller bindings: matrices are cut into more windows, for tests.
    #[doc(hidden)]
    pub fn narrow(&self, bytes: u64) -> Gpu {
        let limits = wgpu::Limits { max_storage_buffer_binding_size: bytes, ..self.limits.clone() };
        Gpu { limits, ..self.clone() }
    }

    /// The same device with another name: a browser tells none to wgpu.
    pub fn named(mut self, name: String) -> Gpu {
        self.description.name = name;
        self
    }

    /// The adapter.
    pub fn describe(&self) -> &Description {
        &self.description
    }

    /// Bytes that a binding, and so a buffer of ours, may have.
    pub fn binding_limit(&self) -> usize {
        self.limits.max_storage_buffer_binding_size.min(self.limits.max_buffer_size) as usize
    }

    /// Why the device is gone, if it is.
    pub fn lost(&self) -> Option<String> {
        self.trouble.lock().map_or(Some("a thread panicked".to_owned()), |t| t.lost.clone())
    }

    /// What went wrong since this was asked for the last time.
    pub fn fault(&self) -> Option<String> {
        self.trouble.lock().map_or(None, |mut t| t.fault.take())
    }

    /// A buffer that kernels read and write.
    pub fn buffer(&self, bytes: usize) -> wgpu::Buffer {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffer = self.with_usage(bytes, usage);
        if self.poisoned {
            // In pieces: what is written is kept twice until it is copied.
            for at in (0..buffer.size()).step_by(PIECE) {
                let len = (buffer.size() - at).min(PIECE as u64) as usize;
                self.queue.write_buffer(&buffer, at, &vec![0xff; len]);
            }
        }
        buffer
    }

    /// A buffer for something else.
    pub fn with_usage(&self, bytes: usize, usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let size = bytes.max(16).next_multiple_of(16) as u64;
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    }

    /// A buffer with these bytes.
    pub fn upload(&self, bytes: &[u8]) -> wgpu::Buffer {
        self.upload_pieces(bytes.chunks(PIECE), bytes.len())
    }

    /// A buffer with `len` bytes that come one piece after another. They go over some at a time, which are waited for: a
    /// driver keeps what it has not copied.
    pub fn upload_pieces<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>, len: usize) -> wgpu::Buffer {
        let buffer = self.buffer(len);
        let (mut at, mut gathered) = (0, Vec::new());
        let mut write = |bytes: &[u8]| {
            self.queue.write_buffer(&buffer, at, bytes);
            at += bytes.len() as u64;
            if self.written.fetch_add(bytes.len(), Ordering::Relaxed) + bytes.len() >= PIECE {
                self.written.store(0, Ordering::Relaxed);
                self.queue.submit([]);
                self.wait();
            }
        };
        for piece in pieces {
            if gathered.is_empty() && piece.len() == PIECE {
                write(piece);
                continue;
            }
            gathered.extend_from_slice(piece);
            // Words only.
            let whole = gathered.len() / 4 * 4;
            if whole >= PIECE / 2 {
                write(&gathered[..whole]);
                gathered.drain(..whole);
            }
        }
        if !gathered.is_empty() {
            gathered.resize(gathered.len().next_multiple_of(4), 0);
            write(&gathered);
        }
        buffer
    }

    /// Waits for what was submitted; a browser's thread cannot, and goes on.
    pub fn wait(&self) {
        #[cfg(not(target_arch = "wasm32"))]
        // A device that is gone is found by `lost`.
        drop(self.device.poll(wgpu::PollType::wait_indefinitely()));
    }

    /// When all is done that was submitted: what went wrong, if anything did.
    pub async fn done(&self) -> Option<String> {
        let state = Arc::new(Mutex::new((false, None::<Waker>)));
        let told = state.clone();
        self.queue.on_submitted_work_done(move || {
            if let Ok(mut state) = told.lock() {
                state.0 = true;
                if let Some(waker) = state.1.take() {
                    waker.wake();
                }
            }
        });
        self.wait();
        poll_fn(|cx| match state.lock() {
            Ok(mut state) if !state.0 && self.lost().is_none() => {
                state.1 = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        })
        .await;
        self.lost().or_else(|| self.fault())
    }

    /// The same device, and its pipelines, with a list of its own of the texts that are asked for.
    pub fn watched(&self) -> Gpu {
        Gpu { asked: Some(Arc::default()), ..self.clone() }
    }

    /// The texts of the pipelines that were asked for, of a device that is [watched](Gpu::watched).
    pub fn texts(&self) -> HashSet<String> {
        let asked = self.asked.as_ref().and_then(|asked| asked.lock().ok());
        asked.map_or(HashSet::new(), |asked| asked.clone())
    }

    /// Whether it has a clock that kernels can be timed with.
    pub fn has_clock(&self) -> bool {
        self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY)
    }

    /// From now on each dispatch of a step is timed, with a pass of its own. Nothing is where the adapter has no clock.
    pub fn start_profile(&self) {
        if let Ok(mut profile) = self.profile.lock() {
            *profile = Some(Profile::new());
        }
    }

    /// What steps took since; they are not timed any more.
    pub fn take_profile(&self) -> Profile {
        self.profile.lock().ok().and_then(|mut profile| profile.take()).unwrap_or_default()
    }

    /// Whether steps are timed.
    pub(crate) fn is_profiled(&self) -> bool {
        self.profile.lock().is_ok_and(|profile| profile.is_some())
    }

    /// Adds to it.
    pub(crate) fn profile(&self, add: impl FnOnce(&mut Profile)) {
        if let Ok(mut profile) = self.profile.lock() {
            profile.as_mut().map(add);
        }
    }

    /// The pipeline of a text, made once.
    pub fn pipeline(&self, text: &str) -> wgpu::ComputePipeline {
        if let Some(Ok(mut asked)) = self.asked.as_ref().map(|asked| asked.lock()) {
            asked.insert(text.to_owned());
        }
        if let Some(made) = self.pipelines.lock().ok().and_then(|all| all.get(text).cloned()) {
            return made;
        }
        let source = match &self.edit {
            Some(edit) => wgpu::ShaderSource::Wgsl(edit(text).into()),
            None => wgpu::ShaderSource::Wgsl(text.into()),
        };
        let desc = wgpu::ShaderModuleDescriptor { label: None, source };
        // SAFETY: the texts are this crate's own. Loops in them are bounded by sizes, divisors are sizes that are not 0,
        // and every index is one of a program and a batch that were checked (`Program::check`, `Batch::check`).
        let module =
            unsafe { self.device.create_shader_module_trusted(desc, wgpu::ShaderRuntimeChecks::unchecked()) };
        let made = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        if let Ok(mut all) = self.pipelines.lock() {
            all.insert(text.to_owned(), made.clone());
        }
        made
    }
}
