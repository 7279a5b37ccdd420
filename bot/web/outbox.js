// Messages of this page that the server has not confirmed. A message keeps its id when it is sent again, so that it is
// stored once even if only the confirmation was lost. Every request carries all of them. Gradio reloads the page after a
// lost connection, so they and the text in the field outlive that.
const doppel = {
    unconfirmed: [],
    requests: 0,

    field: () => document.querySelector("#text textarea"),

    newId() {
        const bytes = crypto.getRandomValues(new Uint8Array(16)); // randomUUID needs HTTPS
        return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
    },

    // Takes the text out of the field, except what was typed meanwhile. Returns what is sent and what stays.
    take(text) {
        const returned = this.unconfirmed.filter((message) => message.isReturned);
        const old = returned.map((message) => message.text).join("\n");
        const typed = this.field().value;
        let added = text;
        if (returned.length && (text === old || text.startsWith(old + "\n"))) {
            returned.forEach((message) => (message.isReturned = false));
            added = text.slice(old.length + 1);
        } else {
            this.unconfirmed = this.unconfirmed.filter((message) => !message.isReturned);
        }
        if (added.trim()) this.unconfirmed.push({ id: this.newId(), text: added, isReturned: false });
        this.requests += 1;
        const sent = this.unconfirmed.map(({ id, text }) => ({ id, text }));
        return [JSON.stringify(sent), typed.startsWith(text) ? typed.slice(text.length) : typed];
    },

    // A request has ended; `ids` were stored. Once no request is left that could still store them, unconfirmed messages
    // are put back into the field.
    settle(ids) {
        this.requests = Math.max(0, this.requests - 1);
        this.unconfirmed = this.unconfirmed.filter((message) => !ids.includes(message.id));
        if (!this.requests) this.insert(this.returnMessages());
    },

    // Marks all unconfirmed messages as returned, and returns their texts.
    returnMessages() {
        const lost = this.unconfirmed.filter((message) => !message.isReturned);
        lost.forEach((message) => (message.isReturned = true));
        return lost.map((message) => message.text).join("\n");
    },

    // Puts a text in front of what is typed. Done here and not by an event's result, which would come a moment later and
    // undo what is typed in that moment.
    insert(text) {
        if (!text) return;
        const field = this.field();
        field.value = field.value ? text + "\n" + field.value : text;
        field.dispatchEvent(new Event("input", { bubbles: true }));
    },

    // Keeps messages and text for the next load of the page in this tab.
    keep() {
        if (!this.field()) return;
        this.insert(this.returnMessages());
        const kept = { unconfirmed: this.unconfirmed, text: this.field().value };
        sessionStorage.setItem("doppel-outbox", JSON.stringify(kept));
    },

    // Puts the text into the field that stood there when the page was left.
    restore() {
        const kept = JSON.parse(sessionStorage.getItem("doppel-outbox") || '{"unconfirmed": [], "text": ""}');
        sessionStorage.removeItem("doppel-outbox");
        this.unconfirmed = [...kept.unconfirmed, ...this.unconfirmed];
        this.insert(kept.text);
    },
};
addEventListener("pagehide", () => doppel.keep());
