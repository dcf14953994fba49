"""What the person at the door reads, in French and English. Plain words, no blame."""

from collections.abc import Mapping
from typing import TypedDict


class Message(TypedDict):
    fr: str
    en: str


MESSAGES: Mapping[str, Message] = {
    "staff": {"fr": "Bonjour, bon travail.", "en": "Hello, have a good day at work."},
    "resident": {"fr": "Bienvenue chez vous.", "en": "Welcome home."},
    "network_member": {"fr": "Bienvenue.", "en": "Welcome."},
    "guest": {"fr": "Bienvenue à notre invité.", "en": "Welcome, guest."},
    "exit": {"fr": "Au revoir, à bientôt.", "en": "Goodbye, see you soon."},
    "unknown_credential": {
        "fr": "Cette carte n'est pas connue. Adressez-vous à l'accueil.",
        "en": "This card is not known. Please ask at the desk.",
    },
    "credential_blocked": {
        "fr": "Cette carte est bloquée. Adressez-vous à votre cité.",
        "en": "This card is blocked. Please ask your city.",
    },
    "credential_too_weak": {
        "fr": "Cette porte demande une carte plus sûre, ou votre téléphone.",
        "en": "This door needs a safer card, or your phone.",
    },
    "pass_expired": {
        "fr": "Ce code n'est pas celui d'à présent. L'heure de votre téléphone est-elle juste ?",
        "en": "This is not the code of this moment. Is your phone's clock right?",
    },
    "credential_replayed": {
        "fr": "Déjà utilisé, ou mal lu. Présentez de nouveau la carte, ou le code suivant.",
        "en": "Used already, or not read properly. Hold up the card again, or the next code.",
    },
    "interlock": {
        "fr": "L'autre porte est encore ouverte. Réessayez dans un instant.",
        "en": "The other door is still open. Please try again in a moment.",
    },
    "member_suspended": {
        "fr": "Votre accès au réseau est suspendu. Adressez-vous à votre cité.",
        "en": "Your access to the network is suspended. Please ask your city.",
    },
    "place_locked_down": {
        "fr": "Le lieu est fermé pour votre sécurité. Les sorties restent ouvertes.",
        "en": "This place is closed for your safety. The exits stay open.",
    },
    "place_not_in_network": {
        "fr": "Ce lieu n'est pas ouvert au réseau en ce moment.",
        "en": "This place is not open to the network at the moment.",
    },
    "policy_stale": {
        "fr": "Les horaires de ce lieu ne sont pas à jour. Adressez-vous à l'accueil.",
        "en": "The hours of this place are out of date. Please ask at the desk.",
    },
    "not_entitled": {
        "fr": "Cette porte est réservée aux habitants et à l'équipe du lieu.",
        "en": "This door is for the residents and the team of this place.",
    },
    "guest_not_valid": {
        "fr": "Cette invitation ne vaut pas ici en ce moment. Appelez la personne qui vous invite.",
        "en": "This guest pass is not valid here now. Please call the person who invited you.",
    },
    "outside_hours": {
        "fr": "C'est fermé à cette heure-ci.",
        "en": "It is closed at this hour.",
    },
    "standing_lapsed": {
        "fr": "Il reste du temps à donner. Votre cité peut vous aider à faire le point.",
        "en": "You still have time to give. Your city can help you sort it out.",
    },
    "no_one_in_charge": {
        "fr": "Personne de l'équipe n'est encore là. Revenez dans un moment.",
        "en": "Nobody of the team is here yet. Please come back in a while.",
    },
    "place_full": {
        "fr": "C'est complet. Revenez dans un moment.",
        "en": "It is full. Please come back in a while.",
    },
    "function_full": {
        "fr": "Cet espace est complet. Revenez dans un moment.",
        "en": "This room is full. Please come back in a while.",
    },
    "passback": {
        "fr": "Cette carte est déjà entrée. Badgez d'abord en sortant.",
        "en": "This card is already inside. Please tap on the way out first.",
    },
}
