//! What runs in this process, counted for the rules of sharing.

use std::collections::HashMap;

use streamspace_common::TenantId;

#[derive(Default)]
pub(crate) struct Load {
    pub running: usize,
    tenants: HashMap<TenantId, HashMap<String, usize>>,
}

impl Load {
    pub(crate) fn add(&mut self, queue: &str, tenant: TenantId) {
        self.running += 1;
        let queues = self.tenants.entry(tenant).or_default();
        match queues.get_mut(queue) {
            Some(count) => *count += 1,
            None => {
                queues.insert(queue.to_owned(), 1);
            }
        }
    }

    pub(crate) fn remove(&mut self, queue: &str, tenant: TenantId) {
        self.running -= 1;
        let Some(queues) = self.tenants.get_mut(&tenant) else { return };
        if let Some(count) = queues.get_mut(queue) {
            *count -= 1;
            if *count == 0 {
                queues.remove(queue);
            }
        }
        if queues.is_empty() {
            self.tenants.remove(&tenant);
        }
    }

    pub(crate) fn of_tenant(&self, tenant: TenantId) -> usize {
        self.tenants.get(&tenant).map_or(0, |queues| queues.values().sum())
    }

    pub(crate) fn of_lane(&self, queue: &str, tenant: TenantId) -> usize {
        self.tenants.get(&tenant).and_then(|queues| queues.get(queue)).copied().unwrap_or(0)
    }
}
