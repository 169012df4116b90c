-- When somebody showed by a link of ours that the address is theirs. A provider's word, which a tenant
-- chooses for itself, makes an address verified and not proven.
alter table users add column email_proven_at timestamptz;
