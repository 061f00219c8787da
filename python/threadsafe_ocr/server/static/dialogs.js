// Questions: the server's key, a PDF's password, the camera.

import { text } from "./text.js";

const STORED = "threadsafe-ocr-key";
const $ = (selector) => document.querySelector(selector);

export const key = () => sessionStorage.getItem(STORED) ?? "";

let asking = null;

// Whether there is a key other than `used` now. Whoever asks meanwhile gets the same answer.
export async function askKey(used) {
  if (key() !== used) return true;
  asking ??= askSecret(used ? "ask_key_again" : "ask_key", "ask_key_label").finally(() => (asking = null));
  const given = await asking;
  if (given) sessionStorage.setItem(STORED, given);
  return Boolean(given);
}

export const askPassword = () => askSecret("ask_password", "ask_password_label");

// What was typed, or "" where nobody wanted to.
function askSecret(title, label) {
  const dialog = $("#ask");
  const input = dialog.querySelector("input");
  dialog.querySelector("h2").textContent = text(title);
  dialog.querySelector("label span").textContent = text(label);
  input.value = "";
  dialog.returnValue = "";
  dialog.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    dialog.close(input.value);
  };
  dialog.querySelector("button[type=button]").onclick = () => dialog.close("");
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true });
  });
}

export const hasCamera = () => Boolean(navigator.mediaDevices?.getUserMedia);

// A picture as a File, or null.
export async function takePhoto() {
  const dialog = $("#camera");
  const video = dialog.querySelector("video");
  const [cancel, shoot] = dialog.querySelectorAll("button");
  const camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 3840 } } });
  video.srcObject = camera;
  dialog.returnValue = "";
  cancel.onclick = () => dialog.close("");
  shoot.onclick = () => dialog.close("taken");
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  try {
    if (dialog.returnValue !== "taken" || !video.videoWidth) return null;
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    return new File([blob], "photo.png", { type: "image/png" });
  } finally {
    video.srcObject = null;
    for (const track of camera.getTracks()) track.stop();
  }
}
