-- Somebody who was erased has no words left, no login, no right, and no wish to be found.
ALTER TABLE member ADD CONSTRAINT member_erased_is_nobody CHECK (
    status <> 'erased' OR (
        display_name = '' AND email IS NULL AND password_hash IS NULL AND roles = '{}'
        AND places = '{}' AND directory = 'nobody'
    )
) NOT VALID;
